"""The kernels that tests compare others with."""

from ssl_swin.encoders.kernels import Kernels

PLAIN = Kernels(
    attention="products",
    mlp="keep",
    decoder_attention="products",
    patch_embedding="product",
    head="all",
    optimizer="foreach",
    compile_mode="default",
    bin_multiple=1,
)
