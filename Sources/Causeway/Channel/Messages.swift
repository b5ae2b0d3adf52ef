import Beam
import CErlNif
import CPython
import Python
import Streams
import Synchronization

/// From how many bytes on a message is held where it is, instead of being copied.
///
/// Measured: below, a queue of the BEAM's or a resource for each costs more than the copy.
private let heldSize = 16384

// MARK: Who keeps the bytes of a message

/// A Python object that is let go of on any thread: then its interpreter gives it back later. In plain
/// python3 at once, but by those who read and write packets, who have no GIL.
final class HeldObject: @unchecked Sendable {
    private let pointer: PyPointer
    private let leftovers: Leftovers

    init(_ object: consuming Object, _ leftovers: Leftovers) {
        pointer = object.take()
        self.leftovers = leftovers
    }

    deinit {
        if hostIsBeam {
            leftovers.add(pointer)
        } else if let garbage = PacketGarbage.current {
            garbage.add(pointer)
        } else {
            Py_DecRef(pointer)
        }
    }

    /// A reference of its own, where it is an object of the interpreter that runs. With its GIL.
    func object(_ state: ModuleState) -> Object? {
        leftovers === state.leftovers ? Object(retaining: pointer) : nil
    }
}

/// By which Erlang holds a message whose memory it shows.
final class HeldMessage: Resource, @unchecked Sendable {
    private let message: Payload

    init(_ message: Payload) { self.message = message }
}

// MARK: Between them and the hosts

extension Payload {
    /// The message of a binary or other iodata; nil for what is none.
    static func make(_ env: EnvPointer?, _ term: Term) -> Payload? {
        var binary = ErlNifBinary()
        if enif_inspect_binary(env, term, &binary) != 0 {
            return binary.size < heldSize ? copy(of: binary) : holding(env, term)
        }
        guard enif_inspect_iolist_as_binary(env, term, &binary) != 0 else { return nil }
        return copy(of: binary)
    }

    private static func copy(of binary: ErlNifBinary) -> Payload {
        Payload(copying: UnsafeRawBufferPointer(start: binary.data, count: binary.size))
    }

    private static func holding(_ env: EnvPointer?, _ binary: Term) -> Payload? {
        HeldBinary(env, binary).map { Payload($0.bytes, ownedBy: $0) }
    }

    /// The message of a bytes-like object. With the GIL.
    static func make(_ object: PyPointer, _ state: ModuleState) throws(PythonError) -> Payload {
        if cpython_type(object) == cpython_bytes_type() {
            let bytes = UnsafeRawBufferPointer(start: PyBytes_AsString(object), count: PyBytes_Size(object))
            // Only of bytes it is certain that they never change.
            if bytes.count < heldSize { return Payload(copying: bytes) }
            return Payload(bytes, ownedBy: HeldObject(Object(retaining: object), state.leftovers))
        }
        guard PyObject_CheckBuffer(object) != 0 else {
            throw typeError(
                "a byte channel takes bytes or something bytes-like, not \(typeName(of: object))"
                    + (cpython_is_unicode(object) == 0 ? "" : ": encode the text"))
        }
        return try withBuffer(object) { bytes throws(PythonError) in Payload(copying: bytes) }
    }

    /// A binary. Nil when memory is short.
    func binary(_ env: EnvPointer?) -> Term? {
        if count < heldSize { return makeBinary(env, bytes) }
        if let held = owner as? HeldBinary { return held.term(env) }
        return resourceTypes.message.makeBinary(env, HeldMessage(self), bytes)
    }

    /// A `bytes`. With the GIL.
    func object(_ state: ModuleState) throws(PythonError) -> Object {
        if count >= heldSize, let held = (owner as? HeldObject)?.object(state) { return held }
        return try newBytes(bytes)
    }
}
