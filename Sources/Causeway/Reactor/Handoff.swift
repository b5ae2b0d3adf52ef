import Beam
import Streams

/// A descriptor on its way from Erlang to a reactor, which owns it from now on.
final class Handoff: Sendable {
    /// The number, which `ServedDescriptors` has.
    let number: Int32
    /// Where `info` lives.
    let environment: Environment
    /// The map that becomes `client_info`.
    let info: Term

    /// Takes ownership of the descriptor.
    init(owning number: Int32, environment: consuming Environment, info: Term) {
        self.number = number
        self.environment = environment
        self.info = info
    }

    /// Closes the descriptor of a handoff that nobody takes.
    func discard() {
        ServedDescriptors.shared.release(number)
        _ = Descriptor(owning: number)
    }
}
