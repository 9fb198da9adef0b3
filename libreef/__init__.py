# SPDX-License-Identifier: Apache-2.0
"""libreef: put inference requests into shared memory that reefd reads, without a copy.

from libreef import Client

with Client("driver-fatigue") as client, client.loan("face") as loan:
    loan.inputs["image"][:] = picture
    boxes = loan.infer()["boxes"]
"""

from libreef._reef import ffi as _ffi
from libreef._reef import lib as _lib
from libreef.client import Client
from libreef.daemon import probe
from libreef.errors import (
    AbiMismatch,
    AccessDenied,
    Cancelled,
    ClientClosed,
    DaemonGone,
    DaemonUnreachable,
    DamagedRegion,
    DeadlineExceeded,
    DeviceFailed,
    ForkedProcess,
    InFlight,
    NoFreeSlot,
    PayloadDamaged,
    ProtocolError,
    ReefError,
    SessionLost,
    StaleLoan,
    Timeout,
    TooManySessions,
    UnknownTask,
    WrongThread,
)
from libreef.loan import Future, Loan
from libreef.model import Completion, DaemonInfo, ModelInfo, Stats, TensorInfo
from libreef.tensor import Tensor, Tensors

__version__: str = _ffi.string(_lib.reef_version()).decode()

__all__ = [
    "AbiMismatch",
    "AccessDenied",
    "Cancelled",
    "Client",
    "ClientClosed",
    "Completion",
    "DaemonGone",
    "DaemonInfo",
    "DaemonUnreachable",
    "DamagedRegion",
    "DeadlineExceeded",
    "DeviceFailed",
    "ForkedProcess",
    "Future",
    "InFlight",
    "Loan",
    "ModelInfo",
    "NoFreeSlot",
    "PayloadDamaged",
    "ProtocolError",
    "ReefError",
    "SessionLost",
    "StaleLoan",
    "Stats",
    "Tensor",
    "TensorInfo",
    "Tensors",
    "Timeout",
    "TooManySessions",
    "UnknownTask",
    "WrongThread",
    "probe",
]
