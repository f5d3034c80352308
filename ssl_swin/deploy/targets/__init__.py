"""The kinds of files that networks are exported to, one module each."""

TARGETS = {  # by the word on the command line
    "torch-export": "ssl_swin.deploy.targets.torch_export",
    "onnx": "ssl_swin.deploy.targets.onnx_file",
    "openvino": "ssl_swin.deploy.targets.openvino_file",
    "aoti": "ssl_swin.deploy.targets.aot_inductor",
}
