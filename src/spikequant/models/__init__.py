"""Reference networks."""

from spikequant.models.conv import ConvSNN, digits_net, mnist_net
from spikequant.models.sew_resnet import SEWBlock, SEWResNet, sew_resnet8, sew_resnet18, sew_resnet34

__all__ = [
    "ConvSNN",
    "SEWBlock",
    "SEWResNet",
    "digits_net",
    "mnist_net",
    "sew_resnet8",
    "sew_resnet18",
    "sew_resnet34",
]
