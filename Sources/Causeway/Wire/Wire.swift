import Beam
import CErlNif
import Glibc
import Streams
import Synchronization

/// Descriptors that an Erlang process reads and writes by itself: a socket, or two ends of pipes.
///
/// When there is nothing to read, or no room to write, the BEAM's poll set watches the descriptor and sends the process
/// `{causeway_wire, readable | writable}`. They are closed with the process, or with the last reference.
final class Wire: Resource, @unchecked Sendable {
    // Used with the lock only.
    struct Ends: @unchecked Sendable {
        /// -1 when it is closed. The same number twice for a socket.
        var input: Int32
        var output: Int32
        /// What the poll set has seen is closed only when that has let go of it.
        var isInputWatched = false
        var isOutputWatched = false
        /// What is being read to where it stays.
        var filling: Filling?
    }

    let ends: Mutex<Ends>
    let owner: ErlNifPid

    /// Takes both over, which may be the same. In a NIF of the process that is to use them.
    init(_ env: EnvPointer?, input: Int32, output: Int32) {
        ends = Mutex(Ends(input: input, output: output))
        var owner = ErlNifPid()
        _ = enif_self(env, &owner)
        self.owner = owner
    }

    /// A term for it, with which the process is watched.
    func term(_ env: EnvPointer?) -> Term? {
        guard let term = resourceTypes.wire.makeTerm(env, self) else { return nil }
        if !monitor(env, owner) { close(env) }
        return term
    }

    /// Reads what is there: `{ok, Binary}`, `empty`, `closed` at the end, or an error. Where nothing is there the poll
    /// set is asked to watch, if that is wanted.
    func read(_ env: EnvPointer?, atMost limit: Int, watching: Bool) -> Term {
        ends.withLock { ends in
            guard ends.input >= 0 else { return atoms.closed }
            do throws(Errno) {
                return limit <= smallRead
                    ? try readSmall(env, ends.input, limit) : try readLarge(env, ends.input, limit)
            } catch {
                guard error.code == EAGAIN else { return makeError(env, error) }
            }
            if watching { watchInput(env, &ends) }
            return atoms.empty
        }
    }

    /// The process is told when there is something to read.
    func watchInput(_ env: EnvPointer?, _ ends: inout Ends) {
        ends.isInputWatched = true
        _ = select(
            env, ends.input, forWriting: false, owner: owner,
            message: makeTuple(env, wireAtom(env), atoms.readable))
    }

    /// Through the stack: the binary is made when its size is known.
    private func readSmall(_ env: EnvPointer?, _ number: Int32, _ limit: Int) throws(Errno) -> Term {
        // The closure cannot throw a type of its own through this function of the library.
        let result: Result<Term, Errno> = withUnsafeTemporaryAllocation(byteCount: smallRead, alignment: 16) {
            memory in
            do throws(Errno) {
                let size = try retryingOnInterrupt { Glibc.read(number, memory.baseAddress, limit) }
                if size == 0 { return .success(atoms.closed) }
                guard let binary = makeBinary(env, UnsafeRawBufferPointer(rebasing: memory.prefix(size)))
                else { return .failure(Errno(ENOMEM)) }
                return .success(makeTuple(env, atoms.ok, binary))
            } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// Straight into a binary. Where little of it is used it is made smaller, which may copy.
    private func readLarge(_ env: EnvPointer?, _ number: Int32, _ limit: Int) throws(Errno) -> Term {
        var binary = ErlNifBinary()
        guard enif_alloc_binary(limit, &binary) != 0 else { throw Errno(ENOMEM) }
        var size = 0
        do throws(Errno) { size = try retryingOnInterrupt { Glibc.read(number, binary.data, limit) } } catch {
            enif_release_binary(&binary)
            throw error
        }
        if size == 0 || (size < limit / 4 && enif_realloc_binary(&binary, size) == 0) {
            enif_release_binary(&binary)
            if size == 0 { return atoms.closed }
            throw Errno(ENOMEM)
        }
        let whole = enif_make_binary(env, &binary)
        return makeTuple(env, atoms.ok, size < limit / 4 ? whole : enif_make_sub_binary(env, whole, 0, size))
    }

    /// Writes binaries until there is no room: `{ok, Bytes}`, `{busy, Bytes}` when the process is told later that there
    /// is room, or an error; nil for what is no list of binaries. At most so many pieces and bytes at once: the rest is
    /// for another call.
    func write(_ env: EnvPointer?, _ list: Term) -> Term? {
        var written = 0
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: mostPieces) { pieces -> Term? in
            guard let (count, total) = gather(env, list, pieces) else { return nil }
            return ends.withLock { ends in
                guard ends.output >= 0 else { return makeError(env, Errno(EPIPE)) }
                guard count > 0 else { return makeTuple(env, atoms.ok, enif_make_long(env, 0)) }
                do throws(Errno) {
                    written = try retryingOnInterrupt {
                        // A count of at most 1,024.
                        writev(ends.output, pieces.baseAddress, Int32(truncatingIfNeeded: count))
                    }
                    consumeTimeslice(env, bytes: written)
                    if written == total {
                        return makeTuple(env, atoms.ok, enif_make_long(env, written))
                    }
                } catch {
                    guard error.code == EAGAIN else { return makeError(env, error) }
                }
                ends.isOutputWatched = true
                _ = select(
                    env, ends.output, forWriting: true, owner: owner,
                    message: makeTuple(env, wireAtom(env), atoms.writable))
                return makeTuple(env, atoms.busy, enif_make_long(env, written))
            }
        }
    }

    private func gather(_ env: EnvPointer?, _ list: Term, _ pieces: UnsafeMutableBufferPointer<iovec>)
        -> (count: Int, bytes: Int)?
    {
        var (rest, head, count, bytes) = (list, Term(), 0, 0)
        var binary = ErlNifBinary()
        while count < pieces.count, bytes < mostBytes, enif_get_list_cell(env, rest, &head, &rest) != 0 {
            guard enif_inspect_binary(env, head, &binary) != 0 else { return nil }
            if binary.size == 0 { continue }
            pieces[count] = iovec(iov_base: binary.data, iov_len: binary.size)
            count += 1
            // Both are sizes of memory that exists.
            bytes &+= binary.size
        }
        return (count, bytes)
    }

    /// The other side reads the end. What it writes can be read on.
    func closeOutput(_ env: EnvPointer?) {
        ends.withLock { ends in
            guard ends.output >= 0 else { return }
            if ends.output == ends.input {
                _ = shutdown(ends.output, Int32(truncatingIfNeeded: SHUT_WR))
            } else {
                letGo(env, ends.output, isWatched: ends.isOutputWatched)
                ends.output = -1
            }
        }
    }

    /// Any number of times, in a NIF or a callback.
    func close(_ env: EnvPointer?) {
        ends.withLock { ends in
            if ends.output >= 0, ends.output != ends.input {
                letGo(env, ends.output, isWatched: ends.isOutputWatched)
            }
            if ends.input >= 0 {
                let isOne = ends.input == ends.output
                letGo(env, ends.input, isWatched: ends.isInputWatched || (isOne && ends.isOutputWatched))
            }
            ends.filling?.release()
            ends = Ends(input: -1, output: -1)
        }
    }

    private func letGo(_ env: EnvPointer?, _ number: Int32, isWatched: Bool) {
        if isWatched {
            selectStop(env, number, undefined: atoms.undefined)
        } else {
            _ = Glibc.close(number)
        }
    }

    override func selectStopped(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    override func monitoredProcessDown(_ env: EnvPointer?) { close(env) }

    override func unreferenced(_ env: EnvPointer?) { close(env) }
}

/// Counts what a call has moved as work of its process: else its scheduler takes hundreds of megabytes for nothing,
/// keeps others waiting behind it, and wakes no other scheduler for them.
func consumeTimeslice(_ env: EnvPointer?, bytes: Int) {
    // Sizes of memory; the number is at most 100.
    let percent = min(bytes / bytesOfPercent, 100)
    if percent > 0 { _ = enif_consume_timeslice(env, Int32(truncatingIfNeeded: percent)) }
}

/// What is moved in about 10 microseconds, a hundredth of the time that a process has at once.
private let bytesOfPercent = 32768

/// What is read through the stack, in bytes.
private let smallRead = 16384
/// What one call writes at most: pieces, and bytes after which it takes no further piece.
private let mostPieces = 512
private let mostBytes = 1 << 20

private func wireAtom(_ env: EnvPointer?) -> Term { Atom(env, "causeway_wire").term }
