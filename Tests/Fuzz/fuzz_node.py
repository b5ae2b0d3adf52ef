"""What tests of the conversion call."""


def identity(value):
    return value
