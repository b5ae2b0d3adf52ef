import CPlatform
import Glibc
import Streams

/// The helper: small, and of one thread, so that forking it is cheap and safe. Each request is a fork, which is the
/// guardian of one program.
///
/// When the node is gone it stays until the last guardian is, to look after what one that has crashed leaves behind.
struct Zygote: ~Copyable {
    /// Where the node has put the socket.
    static let socket: Int32 = 3

    private var requests: Descriptor?
    private var guardians: Set<pid_t> = []
    /// Whether there are children that are no guardians: what one has left behind.
    private var hasOrphans = false

    init(requests: consuming Descriptor) { self.requests = consume requests }

    /// Serves until the node is gone and all is tidied up.
    mutating func run() -> Never {
        // What the node has open is no affair of ours, and must not stay open because of us.
        _ = cplatform_close_from(UInt32(truncatingIfNeeded: Zygote.socket) + 1)
        _ = fcntl(Zygote.socket, F_SETFD, FD_CLOEXEC)
        // Signals of a terminal go to the node's session.
        _ = setsid()
        _ = cplatform_be_subreaper()
        cplatform_reset_signals()
        guard let signals = Signals() else { _exit(1) }
        Guardian.rehearse()
        while requests?.number != nil || !guardians.isEmpty || hasOrphans {
            wait(for: requests?.number ?? -1, signals.number, milliseconds: hasOrphans ? 5 : -1)
            // Asked to end it does not: it ends with the node.
            _ = signals.take()
            reap()
            if hasOrphans { endOrphans() }
            takeRequests()
        }
        // Unlike the guardians, which are forks: here the leak sanitizer may look.
        exit(0)
    }

    private mutating func takeRequests() {
        while true {
            let received: Descriptor.Message?
            do throws(Errno) {
                // The value is in an optional, which has to be asked for it.
                guard let message = try requests?.receive(atMost: SpawnHelper.mostBytes) else {
                    requests = nil
                    return
                }
                received = message
            } catch {
                if error.code != EAGAIN { requests = nil }
                return
            }
            if let message = received { fork(for: message) }
        }
    }

    private mutating func fork(for message: Descriptor.Message) {
        let pid = Glibc.fork()
        if pid == 0 {
            requests = nil
            Guardian.run(message)
        }
        if pid > 0 {
            guardians.insert(pid)
        } else if let control = message.descriptors.first {
            let failure = GuardianEvent.failed(step: .fork, error: Errno.last().code, detail: [])
            // The node is told, unless it is gone.
            try? Descriptor.send(failure.encoded, on: control.number)
        }
        // They are the guardian's now.
        for descriptor in message.descriptors { descriptor.close() }
    }

    private mutating func reap() {
        while true {
            var status: Int32 = 0
            let pid = waitpid(-1, &status, WNOHANG)
            if pid <= 0 {
                if pid < 0 { hasOrphans = false }
                return
            }
            // A guardian that ends by itself has left nothing behind.
            if guardians.remove(pid) != nil, status != 0 { hasOrphans = true }
        }
    }

    /// Once more, until none is left.
    private mutating func endOrphans() {
        hasOrphans = !orphans.isEmpty
        if hasOrphans { ProcessTree.freezeAndKill { orphans } }
    }

    private var orphans: [Relative] {
        let me = getpid()
        let children = ProcessTree.children(of: me).filter { !guardians.contains($0) }
        return children.map { Relative(pid: $0, parent: me) }
    }
}
