"""PyTorch on the kernels and networks of test/bench/gpu.ts, on the CUDA device or else the CPU.

Reads one JSON object from standard input:
    {"tasks": [{"name", "op", "type", ...}], "networks": [{"name", "batch", "size"}], "seconds": 200}
where a task is a PeerTask of kernel_cases.ts, shapes channels-last. Writes a JSON object a line: first
what PyTorch this is, then for each task and network {"name", "eager_ms"?, "compiled_ms"?, "problem"?}.

Times are CUDA events around repeats, the least of five rounds; f32 without TF32, cuDNN's algorithms
picked by timing, images channels-last. Eager convolutions are the library's alone, without bias and
activation: what has to be beaten. Compiled is torch.compile, with them; whole networks come first
there, and what `seconds` leave no time for is left out with that as its problem.
"""

import json
import math
import os
import sys
import time

import torch
import torch.nn.functional as F

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
START = time.perf_counter()
ROUNDS = 5
TYPES = {"f32": torch.float32, "f16": torch.float16}

if not CUDA:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True


def elapsed():
    return time.perf_counter() - START


def random(shape, kind):
    return torch.rand(shape, device=DEVICE).mul_(2).sub_(1).to(TYPES[kind])


def image(shape, kind):
    """[N, H, W, C] in memory, [N, C, H, W] in name: PyTorch's channels-last."""
    return random(shape, kind).permute(0, 3, 1, 2)


def seconds_of(work, repeats):
    if not CUDA:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return time.perf_counter() - start
    begin = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def milliseconds_of(work):
    """Least of the rounds, each of about 30 ms."""
    with torch.no_grad():
        seconds_of(work, 3)
        once = max(seconds_of(work, 1), 1e-7)
        repeats = max(1, min(1000, math.ceil(0.03 / once)))
        return 1000 * min(seconds_of(work, repeats) for _ in range(ROUNDS)) / repeats


def activate(x, name):
    return F.relu(x) if name == "relu" else F.gelu(x) if name == "gelu" else x


def prepared(task):
    """@returns the eager work, and the function with its inputs that torch.compile gets."""
    op, kind = task["op"], task["type"]
    if op == "matmul":
        a = random((task["rows"], task["inner"]), kind)
        b = random((task["inner"], task["columns"]), kind)
        bias = random((task["columns"],), kind) if task["bias"] else None
        residual = random((task["rows"], task["columns"]), kind) if task["residual"] else None

        def product(a, b):
            y = a @ b if bias is None else torch.addmm(bias, a, b)
            y = activate(y, task.get("activation"))
            return y if residual is None else y + residual

        return product, (a, b)
    if op == "conv2d":
        n, height, width, channels = task["input"]
        kernel, groups = task["kernel"], task["groups"]
        x = image((n, height, width, channels), kind)
        w = image((task["outChannels"], *kernel, channels // groups), kind)
        bias = random((task["outChannels"],), kind)
        pads = [(k - 1) // 2 for k in kernel]

        def convolution(x, w):
            return F.conv2d(x, w, None, task["stride"], pads, 1, groups)

        def fused(x, w):
            return F.relu(F.conv2d(x, w, bias, task["stride"], pads, 1, groups))

        convolution.fused = fused
        return convolution, (x, w)
    if op == "attention":
        shape = (task["batch"], task["tokens"], 3, task["heads"], task["size"])
        q, k, v = random(shape, kind).permute(2, 0, 3, 1, 4)
        if hasattr(F, "scaled_dot_product_attention"):
            return F.scaled_dot_product_attention, (q, k, v)

        def attention(q, k, v):
            scores = q @ k.transpose(-1, -2) * task["size"] ** -0.5
            return torch.softmax(scores, -1) @ v

        return attention, (q, k, v)
    if op == "normalise":
        x = torch.randint(0, 256, task["shape"], dtype=torch.uint8, device=DEVICE)
        scale, offset = random((3,), kind), random((3,), kind)
        return (lambda x: x.to(TYPES[kind]) * scale + offset), (x,)
    shape = task["shape"]
    if op in ("max_pool", "global_average", "resize", "group_norm"):
        x = image(shape, kind)
        channels = shape[3]
        if op == "max_pool":
            return (lambda x: F.max_pool2d(x, 3, 2, 1)), (x,)
        if op == "global_average":
            return (lambda x: x.mean((2, 3))), (x,)
        if op == "resize":
            mode = "bilinear" if task["mode"] == "linear" else "nearest"
            return (lambda x: F.interpolate(x, scale_factor=2, mode=mode)), (x,)
        w, b = random((channels,), kind), random((channels,), kind)
        return (lambda x: F.group_norm(x, task["groups"], w, b)), (x,)
    x = random(shape, kind)
    if op == "relu":
        return F.relu, (x,)
    if op == "gelu":
        return F.gelu, (x,)
    if op == "softmax":
        return (lambda x: torch.softmax(x, -1)), (x,)
    if op == "layer_norm":
        w, b = random(shape[-1:], kind), random(shape[-1:], kind)
        return (lambda x: F.layer_norm(x, shape[-1:], w, b)), (x,)
    if op == "copy":
        return torch.clone, (x,)
    if op == "channels_last":
        return (lambda x: x.permute(0, 2, 3, 1).contiguous()), (x,)
    if op == "add":
        return torch.add, (x, random(task["right"], kind))
    if op == "mean":
        return (lambda x: x.mean(task["axes"])), (x,)
    if op == "transpose":
        return (lambda x: x.permute(task["axes"]).contiguous()), (x,)
    raise ValueError(f"unknown operation {op}")


class Unet(torch.nn.Module):
    """A ResNet-18 encoder, and a decoder of nearest enlargement, skips and two convolutions a scale."""

    def __init__(self, models):
        super().__init__()
        self.encoder = models.resnet18()
        widths, skips = [256, 128, 64, 32, 16], [256, 128, 64, 64, 0]
        blocks, channels = [], 512
        for width, skip in zip(widths, skips):
            layers = []
            for inputs in (channels + skip, width):
                layers += [
                    torch.nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                    torch.nn.BatchNorm2d(width),
                    torch.nn.ReLU(),
                ]
            blocks.append(torch.nn.Sequential(*layers))
            channels = width
        self.decoder = torch.nn.ModuleList(blocks)
        self.head = torch.nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x):
        e = self.encoder
        features = [e.relu(e.bn1(e.conv1(x)))]
        x = e.maxpool(features[0])
        for stage in (e.layer1, e.layer2, e.layer3, e.layer4):
            x = stage(x)
            features.append(x)
        features.pop()
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if features:
                x = torch.cat([x, features.pop()], 1)
            x = block(x)
        return torch.softmax(self.head(x), 1)


def network(name, size):
    from torchvision import models

    if name.startswith("U-Net"):
        return Unet(models)
    if name.startswith("ViT-S"):
        return models.VisionTransformer(
            image_size=size, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536
        )
    make = {
        "ResNet-18": models.resnet18,
        "ResNet-50": models.resnet50,
        "EfficientNet-B0": models.efficientnet_b0,
    }
    return make[name.split(" ")[0]]()


def say(**what):
    print(json.dumps(what), flush=True)


def attempt(result, key, work):
    """Puts milliseconds, or why there are none, into `result`."""
    try:
        result[key] = milliseconds_of(work)
    except Exception as error:  # Whatever the library refuses, the others are timed.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        result["problem"] = f"{key}: {reason[0]}"
    if CUDA:
        torch.cuda.empty_cache()


def attempt_compiled(result, function, inputs, deadline):
    if not hasattr(torch, "compile"):
        result["problem"] = "compiled_ms: torch.compile needs PyTorch 2"
    elif elapsed() > deadline:
        result["problem"] = "compiled_ms: no time was left"
    else:
        torch._dynamo.reset()
        compiled = torch.compile(function, dynamic=False)
        attempt(result, "compiled_ms", lambda: compiled(*inputs))


def main():
    given = json.load(sys.stdin)
    deadline = given["seconds"]
    cudnn = torch.backends.cudnn.version() if CUDA else None
    say(
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads",
        cuda=torch.version.cuda if CUDA else None,
        cudnn=cudnn,
    )
    results = []
    for task in given["tasks"]:
        result = {"name": task["name"]}
        if elapsed() > deadline:
            result["problem"] = "eager_ms: no time was left"
        else:
            try:
                function, inputs = prepared(task)
                attempt(result, "eager_ms", lambda: function(*inputs))
                function = inputs = None
            except Exception as error:
                result["problem"] = f"eager_ms: {error}"
        results.append((task, result))
    kind = "f16" if CUDA else "f32"
    for wanted in given["networks"]:
        result = {"name": wanted["name"]}
        try:
            model = network(wanted["name"], wanted["size"]).eval().to(DEVICE, TYPES[kind])
            model = model.to(memory_format=torch.channels_last)
            size = wanted["size"]
            x = image((wanted["batch"], size, size, 3), kind)
            attempt(result, "eager_ms", lambda: model(x))
            attempt_compiled(result, model, (x,), deadline)
            model = x = None
        except Exception as error:
            result["problem"] = f"eager_ms: {error}"
        say(**result)
    # Those in f16 first: they are what the project computes in.
    for task, result in sorted(results, key=lambda pair: pair[0]["type"] != "f16"):
        if "eager_ms" in result:
            function, inputs = prepared(task)
            attempt_compiled(result, getattr(function, "fused", function), inputs, deadline)
            function = inputs = None
        say(**result)


main()
