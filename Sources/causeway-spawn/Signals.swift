import CPlatform
import Glibc
import Streams

/// The signals that this process waits for, among others: all others are as a program expects them.
struct Signals: ~Copyable {
    private let descriptor: Descriptor

    /// The end of a child, and what asks a process to end: neither helper nor guardian may just vanish.
    init?() {
        let wanted = [SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, 0]
        let number = cplatform_signal_descriptor(wanted)
        guard number >= 0 else { return nil }
        descriptor = Descriptor(owning: number)
    }

    /// Readable when one has come.
    var number: Int32 { descriptor.number }

    /// Takes all that have come. True where one asks for the end.
    func take() -> Bool {
        var isAsked = false
        while true {
            let signal = cplatform_next_signal(descriptor.number)
            if signal == 0 { return isAsked }
            if signal != SIGCHLD { isAsked = true }
        }
    }
}

/// Waits until one of two descriptors is readable, where -1 is none, at most so many milliseconds; -1 is for ever.
func wait(for first: Int32, _ second: Int32, milliseconds: Int32) {
    var set = [
        pollfd(fd: first, events: Int16(POLLIN), revents: 0),
        pollfd(fd: second, events: Int16(POLLIN), revents: 0),
    ]
    _ = poll(&set, nfds_t(set.count), milliseconds)
}
