"""Nets as files: how they are written, compared with what they came from, and run by torch, onnxruntime or OpenVINO."""
