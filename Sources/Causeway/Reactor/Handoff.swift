import Beam
import CErlNif
import CPython
import Python
import Streams
import Synchronization

/// A descriptor on its way to a reactor, which owns it from now on.
final class Handoff: Sendable {
    /// The number, which `ServedDescriptors` has.
    let number: Int32
    let kind: Descriptor.Kind
    private let content: Content
    private let taken = Atomic<Bool>(false)

    /// What `client_info` is made from, and what was read already.
    private enum Content: @unchecked Sendable {
        /// Terms in an environment of their own.
        case terms(Environment.Shared, info: Term, data: Term)
        /// References to a dict, and to what makes the protocols where it is not the interpreter's factory.
        case objects(info: PyPointer, factory: PyPointer?)
    }

    /// From Erlang. Takes ownership of the descriptor.
    init(
        owning number: Int32, _ kind: Descriptor.Kind, environment: consuming Environment, info: Term,
        data: Term
    ) {
        self.number = number
        self.kind = kind
        content = .terms(Environment.Shared(environment), info: info, data: data)
    }

    /// From Python: takes over references to the dict and the factory as well.
    init(owning number: Int32, _ kind: Descriptor.Kind, info: consuming Object, factory: PyPointer?) {
        self.number = number
        self.kind = kind
        content = .objects(info: info.take(), factory: factory)
    }

    /// A dict for `client_info`. With the GIL, once: the reference is the caller's.
    func info(_ state: ModuleState) throws(PythonError) -> Object {
        switch content {
        case .terms(let environment, let info, _):
            try Decoder(env: environment.pointer, state: state).object(info)
        case .objects(let info, _): Object(owning: info)
        }
    }

    /// The factory that it brings. With the GIL, once: the reference is the caller's.
    func factory() -> PyPointer? {
        guard case .objects(_, let factory) = content else { return nil }
        return factory
    }

    /// Gives up the references of a handoff that nobody takes. With the GIL.
    func dropObjects() {
        guard case .objects(let info, let factory) = content else { return }
        Py_DecRef(info)
        Py_DecRef(factory)
    }

    /// What was read from the descriptor before it was handed over, as a ReactorBuffer; nil for nothing.
    func initialData(_ state: ModuleState) throws(PythonError) -> Object? {
        guard case .terms(let environment, _, let data) = content else { return nil }
        var binary = ErlNifBinary()
        guard enif_inspect_binary(environment.pointer, data, &binary) != 0, binary.size > 0 else {
            return nil
        }
        return try ReactorBuffer.make(
            state.bufferType, of: UnsafeRawBufferPointer(start: binary.data, count: binary.size))
    }

    /// Whether a connection owns the descriptor by now.
    var isTaken: Bool { taken.load(ordering: .relaxed) }

    /// Gives the descriptor to a connection.
    func take() -> Int32 {
        taken.store(true, ordering: .relaxed)
        return number
    }

    /// Closes the descriptor of a handoff that nobody takes.
    func close() {
        ServedDescriptors.shared.release(number)
        _ = Descriptor(owning: take())
    }
}
