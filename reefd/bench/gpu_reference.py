# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime computes on the CPU from seeded inputs: `python gpu_reference.py NETWORK.onnx OUT.npz`.

Run by any interpreter that has it; imports nothing of reefd. Inputs are drawn in the file's order, as
`reefctl bench gpu` draws them.
"""

import sys

import numpy as np
import onnxruntime


def main() -> None:
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(5)
    given = {i.name: generator.random(i.shape, np.float32) for i in session.get_inputs()}
    np.savez(sys.argv[2], *session.run(None, given))


if __name__ == "__main__":
    main()
