import Beam
import CPython
import Python

/// Integers beyond 64 bits, through `int.from_bytes` and `int.to_bytes`: the C functions behind those
/// are not part of the limited API.
enum BigInteger {
    /// A Python `int`.
    static func decode(isNegative: Bool, magnitude: UnsafeRawBufferPointer) throws(PythonError) -> Object {
        let bytes = try newBytes(magnitude)
        let type = try Object(PyObject_Type(try Object(PyLong_FromLong(0)).pointer))
        let absolute = try Object(cpython_from_bytes(type.pointer, bytes.pointer))
        return isNegative ? try Object(PyNumber_Negative(absolute.pointer)) : absolute
    }

    /// An Erlang integer.
    static func encode(_ env: EnvPointer?, _ object: PyPointer) throws(PythonError) -> Term {
        var bits = 0
        let term = try withMagnitude(object) { isNegative, magnitude -> Term? in
            bits = magnitude.count * 8
            return makeBigInteger(env, isNegative: isNegative, magnitude: magnitude)
        }
        guard let term else {
            throw raised(cpython_OverflowError(), "an int of \(bits) bits is too large for Erlang")
        }
        return term
    }

    /// Runs `body` on the sign and the magnitude of an `int`, least significant byte first.
    static func withMagnitude<Result>(
        _ object: PyPointer, _ body: (_ isNegative: Bool, _ magnitude: UnsafeRawBufferPointer) -> Result
    ) throws(PythonError) -> Result {
        let zero = try Object(PyLong_FromLong(0))
        let isNegative = PyObject_RichCompareBool(object, zero.pointer, Py_LT)
        guard isNegative >= 0 else { throw PythonError() }
        let absolute = try Object(PyNumber_Absolute(object))
        let bits = try Object(cpython_call_method_named(absolute.pointer, "bit_length"))
        let bitCount = PyLong_AsSsize_t(bits.pointer)
        guard bitCount >= 0 else { throw PythonError() }
        let bytes = try Object(cpython_to_bytes(absolute.pointer, (bitCount + 7) / 8))
        return try withBuffer(bytes.pointer) { bytes throws(PythonError) in body(isNegative == 1, bytes) }
    }
}
