"""Reference networks."""

from spikequant.models.conv import ConvSNN, digits_net, mnist_net
from spikequant.models.decolle import Decolle
from spikequant.models.plif import PLIFNet, cifar10dvs_net, gesture_net, nmnist_net, parametric_lif
from spikequant.models.sew_resnet import SEWBlock, SEWResNet, sew_resnet8, sew_resnet18, sew_resnet34
from spikequant.models.vgg import SpikingVGG, vgg9, vgg11, vgg16

__all__ = [
    "ConvSNN",
    "Decolle",
    "PLIFNet",
    "SEWBlock",
    "SEWResNet",
    "SpikingVGG",
    "cifar10dvs_net",
    "digits_net",
    "gesture_net",
    "mnist_net",
    "nmnist_net",
    "parametric_lif",
    "sew_resnet8",
    "sew_resnet18",
    "sew_resnet34",
    "vgg9",
    "vgg11",
    "vgg16",
]
