import Beam
import CErlNif
import CPython
import Python
import Streams

/// A value of Python's as a chunk in a plain python3: CBOR. Inside the BEAM it is a term, an `AbortReason`.
final class CborChunk: Sendable {
    let body: Payload

    init(_ body: Payload) { self.body = body }
}

/// Who keeps the bytes of a chunk that has none.
final class EmptyChunk: Sendable {
    static let shared = EmptyChunk()
}

extension Payload {
    /// The chunk of something bytes-like, or of another value. With the GIL.
    static func chunk(_ object: PyPointer, _ state: ModuleState) throws(PythonError) -> Payload {
        if cpython_is_unicode(object) == 0, PyObject_CheckBuffer(object) != 0 {
            let chunk = try make(object, state)
            // Even nothing takes memory.
            return chunk.count > 0 ? chunk : Payload(weighing: 1, ownedBy: EmptyChunk.shared)
        }
        guard hostIsBeam else {
            var writer = CborObjectWriter()
            try writer.write(object)
            return writer.writer.bytes.withUnsafeBytes { Payload(cbor: Payload(copying: $0)) }
        }
        let reason = try AbortReason(object, state)
        return Payload(weighing: max(reason.externalSize, 1), ownedBy: reason)
    }

    /// The chunk of CBOR.
    init(cbor: Payload, weight: Int? = nil) {
        self.init(weighing: max(weight ?? cbor.count, 1), ownedBy: CborChunk(cbor))
    }

    /// What Python gets who receives it. With the GIL.
    func chunk(_ state: ModuleState) throws(PythonError) -> Object {
        guard let owner else { return try newBytes(bytes) }
        if let value = owner as? AbortReason { return try value.object(state) }
        if let value = owner as? CborChunk {
            var reader = CborObjectReader(value.body.bytes)
            return try reader.whole()
        }
        // It was read to where it stays.
        if let whole = owner as? PacketBytes { return Object(retaining: whole.pointer) }
        return try object(state)
    }
}

extension AbortReason {
    /// How many bytes its external form has, by which a term is weighed.
    fileprivate var externalSize: Int {
        guard case .term(let environment, let term) = content else { return 0 }
        var external = ErlNifBinary()
        guard enif_term_to_binary(environment.pointer, term, &external) != 0 else { return 0 }
        defer { enif_release_binary(&external) }
        return external.size
    }
}
