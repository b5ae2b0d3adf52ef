import Beam
import CErlNif
import Glibc
import Streams

/// A large packet that is read straight into the binary that it becomes: nothing is put together from pieces.
extension Wire {
    /// The binary, how much of it is there, and how much it will be: what is only announced takes no memory.
    struct Filling: @unchecked Sendable {
        var binary: ErlNifBinary
        var filled: Int
        let size: Int

        /// Makes room for more; false without memory for it.
        mutating func grow() -> Bool {
            // A size of memory that exists.
            filled < binary.size || enif_realloc_binary(&binary, min(size, 2 &* binary.size)) != 0
        }

        mutating func release() { enif_release_binary(&binary) }
    }

    /// Begins one of so many bytes, of which the first are there already. False without memory for it, and nil where
    /// there would be nothing to read, or one is begun.
    func gather(_ beginning: UnsafeRawBufferPointer, size: Int) -> Bool? {
        ends.withLock { ends -> Bool? in
            guard ends.filling == nil, beginning.count < size else { return nil }
            var binary = ErlNifBinary()
            guard enif_alloc_binary(min(size, max(mostBelieved, beginning.count)), &binary) != 0 else {
                return false
            }
            UnsafeMutableRawBufferPointer(start: binary.data, count: binary.size).copyMemory(from: beginning)
            ends.filling = Filling(binary: binary, filled: beginning.count, size: size)
            return true
        }
    }

    /// Reads once: `{ok, Binary}` when all is there, `{more, Bytes}` for what has come now, and else as `read`. Nil where
    /// none is begun.
    func fill(_ env: EnvPointer?, watching: Bool) -> Term? {
        ends.withLock { ends -> Term? in
            guard ends.input >= 0 else { return atoms.closed }
            guard var filling = ends.filling else { return nil }
            guard filling.grow() else { return makeError(env, Errno(ENOMEM)) }
            ends.filling = filling
            let room = filling.binary.size &- filling.filled
            do throws(Errno) {
                let size = try retryingOnInterrupt {
                    Glibc.read(ends.input, filling.binary.data + filling.filled, min(room, mostFilled))
                }
                if size == 0 { return atoms.closed }
                consumeTimeslice(env, bytes: size)
                if filling.filled &+ size == filling.size {
                    ends.filling = nil
                    return makeTuple(env, atoms.ok, enif_make_binary(env, &filling.binary))
                }
                ends.filling?.filled &+= size
                return makeTuple(env, atoms.more, enif_make_long(env, size))
            } catch {
                guard error.code == EAGAIN else { return makeError(env, error) }
            }
            if watching { watchInput(env, &ends) }
            return atoms.empty
        }
    }
}

/// How large a packet is believed to be, in bytes, before half of that has come.
private let mostBelieved = 4 << 20
/// What one call reads at most, in bytes: its scheduler has other work, too.
private let mostFilled = 1 << 20
