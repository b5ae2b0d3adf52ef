import Synchronization

/// Messages of a queue that nobody will receive.
///
/// To let go of a million takes a tenth of a second. Who ends a queue is often a scheduler of the BEAM, which must not
/// be kept so long: a thread of their own does it where they are many.
final class DroppedMessages: Sendable {
    /// So many, or of so many bytes, take less than a millisecond.
    private static let few = 4096
    private static let small = 16 << 20

    private let messages: Mutex<MessageLine>
    private let areFew: Bool

    init(_ messages: MessageLine, bytes: Int) {
        areFew = messages.count <= DroppedMessages.few && bytes <= DroppedMessages.small
        self.messages = Mutex(messages)
    }

    /// Ends them, now or soon. Without the lock of their queue: what they hold may do anything when it ends.
    func letGo() {
        if areFew { return end() }
        do {
            try NativeThread.start(name: "causeway-drop", stackSize: 128 << 10) { self.end() }
        } catch {
            // Without a thread it takes what it takes.
            end()
        }
    }

    private func end() {
        var messages = messages.withLock { $0.takeAll() }
        messages.removeAll()
    }
}
