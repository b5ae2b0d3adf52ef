import CPython
import Python
import Streams

/// A descriptor that an event loop watches, for callbacks or for a transport.
final class LoopWatch {
    let fd: Int32
    var token = Poller.Token(bits: 0)
    /// The handles of `add_reader` and `add_writer`, with references that are the watch's.
    var reader: PyPointer?
    var writer: PyPointer?
    /// A transport reads and writes by itself. Beside it there are handles while a file is sent.
    unowned(unsafe) var transport: LoopTransport?
    /// What the poller was asked for; nil where the descriptor is not in it.
    var interest: Poller.Interest?

    init(fd: Int32) { self.fd = fd }

    /// What it is to be watched for. Without any, the poller would still tell of a peer that has gone, again and again.
    var wanted: Poller.Interest? {
        let reads = reader != nil || transport?.wantsToRead ?? false
        let writes = writer != nil || transport?.wantsToWrite ?? false
        return reads ? (writes ? .readAndWrite : .read) : (writes ? .write : nil)
    }
}
