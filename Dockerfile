# The image of WGSLide: README.md, «Build the image».
#
#     docker build -t wgslide .
#
# On a network that opens TLS, add `--secret id=ca,src=FILE` with its certificates.

FROM debian:trixie-slim AS build
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends binutils npm
WORKDIR /app
ARG DENO_VERSION=2.9.6
RUN --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export NODE_EXTRA_CA_CERTS=/run/secrets/ca; \
    npm install --prefix /npm --ignore-scripts --no-audit --no-fund --loglevel=error deno@$DENO_VERSION \
 && mv /npm/node_modules/@deno/linux-*/deno /usr/local/bin/deno
COPY deno.json deno.lock import_map.json ./
# What runs here and nothing else: no binaries for other systems, types, maps or build tools.
RUN --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export NODE_EXTRA_CA_CERTS=/run/secrets/ca; \
    deno install --quiet --frozen \
 && case $(uname -m) in x86_64) cpu=x64 ;; aarch64) cpu=arm64 ;; esac \
 && cd node_modules/.deno \
 && rm -rf *linuxmusl* @types+* @valibot+to-json-schema* @webgpu+types* cmake-js* node-api-headers* node-addon-api* tar@* \
      core-js-pure* @babel+runtime-corejs3* dcmjs*/node_modules/dcmjs/build/dcmjs*.js.map \
      dcmjs*/node_modules/dcmjs/build/dcmjs.js dcmjs*/node_modules/dcmjs/build/dcmjs.min.js \
 && find webgpu@*/node_modules/webgpu/dist -mindepth 1 -maxdepth 1 ! -name "linux-$cpu" -exec rm -r {} + \
 && find . -path '*/prebuilds/*' -type d ! -name "*-linux-$cpu" -prune -exec rm -r {} + \
 && strip --strip-unneeded webgpu@*/node_modules/webgpu/dist/*/dawn.node \
 && find . -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.md' \) -delete \
 && find /app/node_modules -xtype l -delete

FROM debian:trixie-slim
# Mesa's lavapipe, which computes on the CPU where there is no GPU, and its driver of AMD's GPUs.
# Its others, and its OpenGL, would take the image over 450 MB. NVIDIA's driver comes from the host;
# what it wants of X11 and GL is here.
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      libvulkan1 mesa-vulkan-drivers libegl1 libglvnd0 libx11-6 libxext6 \
 && cd /usr/share/vulkan \
 && rm -rf explicit_layer.d implicit_layer.d /usr/lib/*/libVkLayer_* \
 && find icd.d /usr/lib/*/libvulkan_*.so -type f ! -name '*lvp*' ! -name '*radeon*' -delete \
 && rm /usr/lib/*/libgallium-* /usr/lib/*/libEGL_mesa.* ../glvnd/egl_vendor.d/50_mesa.json \
 && rm -rf /usr/lib/*/gbm /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*

COPY --from=build /usr/local/bin/deno /usr/local/bin/deno
COPY --from=build /app /app
WORKDIR /app
# NVIDIA's manifests do not always come with its driver: src/entrypoint.sh says which is used when.
# Caches are for any user to write, so that `--user` works.
RUN printf '{"file_format_version": "1.0.1", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.0"}}\n' \
      > nvidia_icd.json \
 && printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}\n' \
      > /usr/share/glvnd/egl_vendor.d/10_nvidia.json \
 && useradd --uid 1000 --no-create-home --home-dir /cache wgslide \
 && mkdir -p /cache/nvidia /input /output && chmod 1777 /cache /cache/nvidia /output
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility \
    DENO_DIR=/cache/deno \
    DENO_NO_UPDATE_CHECK=1 \
    MESA_SHADER_CACHE_DIR=/cache/mesa \
    __GL_SHADER_DISK_CACHE_PATH=/cache/nvidia
COPY LICENSE ./
COPY kernels kernels
COPY src src
# Runs on the sample that is built in, so that later ones find code and shaders compiled.
RUN su wgslide -s /bin/sh -c 'export DEV=1 OUTPUT_DIR=/tmp/warm; mkdir /tmp/warm; \
      for classifier in grid nuclei grid; do \
        CLASSIFIER=$classifier src/entrypoint.sh > /tmp/warm/log 2>&1 || { cat /tmp/warm/log; exit 1; }; \
      done; \
      src/entrypoint.sh --help > /tmp/warm/log' \
 && rm -r /tmp/warm && chmod -R a+rwX /cache/deno /cache/mesa
USER wgslide
ENTRYPOINT ["/app/src/entrypoint.sh"]
