"""From full-precision weights to an ONNX file that runs, by a training loop of one's own.

``python examples/own_loop_to_onnx.py teacher.safetensors student.onnx``: a ResNet-20 on digits with
weights and activations of 4 bits. ``daqakd teach digits --out runs/t`` leaves such weights as
``runs/t/teacher.safetensors``.
"""

import sys

import torch
from safetensors.torch import load_file

import daqakd
from daqakd.export import OnnxModel

weights, path = sys.argv[1:]
data = daqakd.data.load("digits")
mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.inputs.mean, data.inputs.std))
x, y = (data.train.pixels / 255 - mean) / std, data.train.labels

teacher = daqakd.models.build("resnet20", data.num_classes)
teacher.load_state_dict(load_file(weights))
student = daqakd.quantize(teacher.eval(), weight_bits=4, act_bits=4)
daqakd.calibrate(student, x[:128])

groups = daqakd.param_groups(student, lr=0.01, weight_decay=1e-4)
optimizer = torch.optim.SGD(groups, momentum=0.9)
for _ in range(2):
    for some in torch.randperm(len(x)).split(64):
        with torch.no_grad():
            wanted = teacher(x[some])
        loss = daqakd.functional.kd_loss(student.train()(x[some]), wanted, y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

daqakd.export_onnx(student.eval(), path, x[:2])
x, y = (data.test.pixels / 255 - mean) / std, data.test.labels
for name, model in (("PyTorch", student), ("onnxruntime", OnnxModel(path))):
    with torch.no_grad():
        print(f"{name}: {(model(x).argmax(1) == y).float().mean():.2%} of the test images")
