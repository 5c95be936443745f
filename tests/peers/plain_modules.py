"""Models of torch.nn alone."""

from torch import nn


class Captioner(nn.Module):
    """Recurrence, an attention and convolutions by torch.nn alone."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, bidirectional=True)
        self.attend = nn.MultiheadAttention(8, 2, kdim=16, vdim=16)
        self.act = nn.PReLU()
        self.mix = nn.Bilinear(8, 8, 8)
        self.out = nn.Linear(8, 20)


class Generator(nn.Module):
    """A small generator of images by torch.nn."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(4, 8)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 4), nn.ConvTranspose2d(8, 8, 4)])
        self.norms = nn.ModuleList([nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)])
        self.to_rgb = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 3, 1))


class Forecaster(nn.Module):
    """Dilated convolutions with weight_norm and a GRU cell, as in temporal networks."""

    def __init__(self):
        super().__init__()
        wrap = nn.utils.parametrizations.weight_norm
        self.stack = nn.Sequential(wrap(nn.Conv1d(2, 4, 3)), nn.ReLU(), wrap(nn.Conv1d(4, 4, 3)))
        self.cell = nn.GRUCell(4, 4)
        self.scale = nn.RMSNorm(4)
        self.out = nn.Linear(4, 1)
