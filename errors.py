"""Every error that onnx-arch raises on purpose.

    OnnxArchError
    ├── InvalidArgumentError        a command or call was given something it cannot take
    │   └── UnknownEntryError       no architecture, operator or runtime of that name
    ├── InvalidModelError           the .onnx file (or its external data) is not a usable model
    ├── InvalidInputError           a tensor has the wrong name, dtype, rank, shape or value
    ├── InvalidAttributeError       an operator attribute is outside what its spec allows
    ├── DuplicateEntryError         a registry was given the same key twice
    ├── MissingKernelError          the oracle has no kernel for an operator
    ├── WeightsError                a checkpoint does not fit the architecture
    ├── ExportError                 a module could not be translated to ONNX
    ├── StreamError                 a results file is malformed, truncated or of another version
    └── RuntimeFailure              the runtime under test did not return outputs
        ├── RuntimeUnavailableError     the runtime or its provider is not installed here
        ├── UnsupportedByRuntimeError   it says that it does not implement this
        ├── RaisedByRuntimeError        it raised anything else
        ├── CrashedError                its process died
        └── HungError                   it did not answer within the time limit

A message says what was given and what is allowed, with numbers and names. Only `cli` catches.
A deviation between a runtime and the oracle is data (a result), never an exception.
"""


class OnnxArchError(Exception):
    """Root of the tree; catching it catches every deliberate error."""


class InvalidArgumentError(OnnxArchError):
    """A command or call was given something it cannot take."""


class UnknownEntryError(InvalidArgumentError):
    """No architecture, operator or runtime of that name is registered."""


class InvalidModelError(OnnxArchError):
    """The .onnx file, or the external data that it names, is not a usable model."""


class InvalidInputError(OnnxArchError):
    """A tensor has the wrong name, dtype, rank, shape or value."""


class InvalidAttributeError(OnnxArchError):
    """An operator attribute is outside what its specification allows."""


class DuplicateEntryError(OnnxArchError):
    """A registry was given the same key twice."""


class MissingKernelError(OnnxArchError):
    """The oracle has no kernel for an operator at this version."""


class WeightsError(OnnxArchError):
    """A checkpoint does not fit the architecture: missing, unexpected or mis-shaped keys."""


class ExportError(OnnxArchError):
    """A module could not be translated to ONNX."""


class StreamError(OnnxArchError):
    """A results file is malformed, truncated or of another format version."""


class RuntimeFailure(OnnxArchError):
    """The runtime under test did not return outputs; the subclass says how.

    Attributes:
        log: what the runtime printed while a model was loaded in a process of its own; empty otherwise.
    """

    log: str = ""


class RuntimeUnavailableError(RuntimeFailure):
    """The runtime, or the execution provider asked for, is not installed here."""


class UnsupportedByRuntimeError(RuntimeFailure):
    """The runtime says that it does not implement the operator, type or opset."""


class RaisedByRuntimeError(RuntimeFailure):
    """The runtime raised an error other than "not supported"."""


class CrashedError(RuntimeFailure):
    """The runtime's process died: killed by a signal or exited."""


class HungError(RuntimeFailure):
    """The runtime did not answer within the time limit."""
