import Glibc
import Synchronization

/// The descriptor of a context's poller, which two hold: its thread, and the BEAM's poll set from the
/// first time it watched it. Whoever lets go last closes it.
final class PollerDescriptor: Sendable {
    private struct Holders {
        var descriptor: Int32 = -1
        var thread = false
        var beam = false
    }

    private let holders = Mutex(Holders())

    /// The thread has made it.
    func set(_ descriptor: Int32) {
        holders.withLock { $0 = Holders(descriptor: descriptor, thread: true, beam: false) }
    }

    /// For the BEAM to watch: from now on it is a holder. Nil when there is none, or no longer.
    func forBeam() -> Int32? {
        holders.withLock { holders in
            guard holders.thread else { return nil }
            holders.beam = true
            return holders.descriptor
        }
    }

    /// The descriptor where the BEAM has watched it.
    var knownToBeam: Int32? { holders.withLock { $0.beam ? $0.descriptor : nil } }

    /// The thread is done with it.
    func abandon() { letGo { $0.thread = false } }

    /// The BEAM's poll set is done with it.
    func beamHasLetGo() { letGo { $0.beam = false } }

    private func letGo(_ change: (inout Holders) -> Void) {
        holders.withLock { holders in
            guard holders.descriptor >= 0 else { return }
            change(&holders)
            if holders.thread || holders.beam { return }
            _ = Glibc.close(holders.descriptor)
            holders.descriptor = -1
        }
    }
}
