import Beam
import CErlNif
import Glibc
import Streams

/// A descriptor of a resource, which the BEAM's poll set may watch. From the first time on it is closed only when
/// the poll set has let go of it. Its owner keeps it in one place.
struct WatchedDescriptor {
    /// -1 when it is closed.
    private(set) var number: Int32 = -1
    private var isKnownToBeam = false

    /// None.
    init() {}

    init(_ descriptor: consuming Descriptor) { number = descriptor.release() }

    var isOpen: Bool { number >= 0 }

    /// Has the message sent once, when it is readable or writable. In a NIF.
    mutating func watch(
        _ env: EnvPointer?, of resource: Resource, forWriting: Bool = false, owner: ErlNifPid, message: Term
    ) {
        guard isOpen else { return }
        isKnownToBeam = true
        _ = resource.select(env, number, forWriting: forWriting, owner: owner, message: message)
    }

    /// Closes it, now or when the resource is told `selectStopped`. Any number of times. In a NIF or a callback of the
    /// resource.
    mutating func close(_ env: EnvPointer?, of resource: Resource) {
        guard isOpen else { return }
        if isKnownToBeam {
            resource.selectStop(env, number, undefined: atoms.undefined)
        } else {
            _ = Glibc.close(number)
        }
        number = -1
    }
}
