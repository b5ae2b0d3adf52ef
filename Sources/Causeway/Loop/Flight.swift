import CPlatform
import CPython
import Glibc
import Python
import Streams

/// A piece of what a transport is to write: a `bytes` of which the piece has a reference.
struct Chunk {
    let object: PyPointer
    var start: UnsafeRawPointer
    var count: Int
}

/// What one transport writes at the end of a turn, without the GIL. Nobody else has its chunks meanwhile.
struct Flight {
    /// How many pieces one system call takes.
    private static let pieces = 64

    let transport: StreamTransport
    let fd: Int32
    let isSocket: Bool
    var chunks: [Chunk]
    /// How many of them are written.
    var written = 0
    var bytes = 0
    var error: Errno?
    /// Something is to be done as soon as it is written.
    let isAwaited: Bool

    /// Writes what there is room for.
    mutating func fly() {
        while written < chunks.count {
            let transfer = writeSome()
            switch transfer {
            case .bytes(let count): advance(count)
            case .wouldBlock, .noMemory: return
            case .failed(let error):
                self.error = error
                return
            }
        }
    }

    @inline(__always)
    private func writeSome() -> Transfer {
        let left = chunks.count - written
        if left == 1 {
            let chunk = chunks[written]
            let bytes = UnsafeRawBufferPointer(start: chunk.start, count: chunk.count)
            return writeAvailable(fd, bytes, isSocket: isSocket)
        }
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: Flight.pieces) { vectors in
            let count = min(left, Flight.pieces)
            for index in 0..<count {
                let chunk = chunks[written + index]
                vectors[index] = iovec(
                    iov_base: UnsafeMutableRawPointer(mutating: chunk.start), iov_len: chunk.count)
            }
            return gatherAvailable(fd, vectors, count, isSocket: isSocket)
        }
    }

    private mutating func advance(_ count: Int) {
        bytes += count
        var rest = count
        while written < chunks.count {
            let size = chunks[written].count
            if rest < size {
                chunks[written].start += rest
                chunks[written].count = size - rest
                return
            }
            rest -= size
            written += 1
        }
    }
}

extension LoopCore {
    /// Takes what is to be written from the transports.
    func takeOff() {
        guard !dirty.isEmpty else { return }
        for transport in dirty { transport.takeOff() }
        dirty.removeAll(keepingCapacity: true)
    }

    /// Writes. True where nothing is to be done at once because of that.
    func fly() -> Bool {
        var isDone = true
        for index in flights.indices {
            flights[index].fly()
            let flight = flights[index]
            // Where it is not all written, the transport is to ask for room first.
            if flight.isAwaited || flight.error != nil || flight.written < flight.chunks.count {
                isDone = false
            }
        }
        for index in datagramFlights.indices {
            datagramFlights[index].fly()
            if !datagramFlights[index].isDone { isDone = false }
        }
        return isDone
    }

    /// Gives back to the transports what is not written.
    func land() throws(PythonError) {
        guard hasFlights else { return }
        let landed = flights
        let landedDatagrams = datagramFlights
        flights.removeAll(keepingCapacity: true)
        datagramFlights.removeAll(keepingCapacity: true)
        var raised: Exception?
        for flight in landed {
            do throws(PythonError) { try flight.transport.land(flight) } catch { keep(&raised) }
        }
        for flight in landedDatagrams {
            do throws(PythonError) { try flight.transport.land(flight) } catch { keep(&raised) }
        }
        guard let raised = raised.take() else { return }
        raised.restore()
        throw PythonError()
    }

    /// The others land all the same; the first is what ends the loop.
    private func keep(_ raised: inout Exception?) {
        let exception = Exception.take()
        if raised == nil { raised = exception }
    }

    /// Something was being written when the loop waited.
    var hasFlights: Bool { !flights.isEmpty || !datagramFlights.isEmpty }
}
