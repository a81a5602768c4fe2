"""The law: what a quantized spiking network computes, in numpy and the standard library only."""
