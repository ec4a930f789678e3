#!/bin/sh
# Starts WGSLide in the image: the Vulkan loader told where NVIDIA's driver is, and Deno given no
# more rights than the program needs.
set -eu

# Depending on its version and on who starts the container, NVIDIA's container toolkit brings the
# driver's libraries without the manifest by which the Vulkan loader knows them, or brings both to
# a place of its own. A manifest that is always there would name a missing library on other machines.
nvidia=/usr/local/nvidia
if [ -d $nvidia/lib64 ]; then
  export LD_LIBRARY_PATH="$nvidia/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
if [ -z "${VK_DRIVER_FILES:-}${VK_ADD_DRIVER_FILES:-}" ]; then
  known='' library=''
  for file in /etc/vulkan/icd.d/nvidia*.json /usr/share/vulkan/icd.d/nvidia*.json; do
    [ ! -e "$file" ] || known=$file
  done
  for file in /usr/lib/*-linux-gnu/libGLX_nvidia.so.0 $nvidia/lib64/libGLX_nvidia.so.0; do
    [ ! -e "$file" ] || library=$file
  done
  if [ -z "$known" ] && [ -n "$library" ]; then
    export VK_ADD_DRIVER_FILES=/app/nvidia_icd.json
  fi
fi

# The slide and the model may lie anywhere; what is written, only where it was said to be. Native
# code is Dawn, the codecs and libc, which Deno cannot find by its name where this is a list of paths.
cd /app
exec deno run --quiet --no-prompt --no-lock --cached-only \
  --allow-env \
  --allow-read \
  --allow-write="${OUTPUT_DIR:-/output},${WORK_DIR:-${TMPDIR:-/tmp}}" \
  --allow-net \
  --allow-sys=cpus,statfs,systemMemoryInfo \
  --allow-ffi \
  src/main.ts "$@"
