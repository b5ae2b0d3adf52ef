import Beam
import CErlNif
import Streams

extension ProcessRequest {
    /// From the tuple that `causeway_process_options` makes; nil where it is none.
    init?(_ env: EnvPointer?, _ term: Term) {
        var count: Int32 = 0
        var elements: UnsafePointer<Term>?
        guard enif_get_tuple(env, term, &count, &elements) != 0, count == 16, let elements,
            let path = bytes(env, elements[0]), let arguments = list(env, elements[1], bytes),
            let environment = list(env, elements[2], bytes),
            let directory = optional(env, elements[3], bytes),
            let user = optional(env, elements[4], account), let gid = optional(env, elements[5], account),
            let groups = optional(env, elements[6], { list($0, $1, account) }),
            let mask = optional(env, elements[7], { number($0, $1, as: UInt32.self) }),
            let nice = optional(env, elements[8], { number($0, $1, as: Int32.self) }),
            let limits = list(env, elements[9], limit),
            let delay = number(env, elements[10], as: UInt32.self), let input = stdio(env, elements[11]),
            let output = stdio(env, elements[12]), let error = stdio(env, elements[13]),
            let terminal = optional(env, elements[14], terminalSize),
            let controlGroup = optional(env, elements[15], cgroup)
        else { return nil }
        self.init()
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.user = user
        self.group = gid
        self.groups = groups
        self.mask = mask
        self.nice = nice
        self.limits = limits
        delayToKill = delay
        self.input = input
        self.output = output
        self.error = error
        self.terminal = terminal
        self.controlGroup = controlGroup
    }
}

private func bytes(_ env: EnvPointer?, _ term: Term) -> [UInt8]? { withBinary(env, term) { Array($0) } }

private func number<Number: FixedWidthInteger>(_ env: EnvPointer?, _ term: Term, as type: Number.Type)
    -> Number?
{
    integer(env, term).flatMap { Number(exactly: $0) }
}

/// `undefined` is nil; nil is what is neither that nor what it may be.
private func optional<Value>(
    _ env: EnvPointer?, _ term: Term, _ value: (EnvPointer?, Term) -> Value?
) -> Value?? {
    if term == atoms.undefined { return .some(nil) }
    return value(env, term).map { .some($0) }
}

private func list<Element>(
    _ env: EnvPointer?, _ term: Term, _ element: (EnvPointer?, Term) -> Element?
) -> [Element]? {
    var elements: [Element] = []
    var (head, tail) = (term, term)
    while enif_get_list_cell(env, tail, &head, &tail) != 0 {
        guard let element = element(env, head) else { return nil }
        elements.append(element)
    }
    return enif_is_empty_list(env, tail) != 0 ? elements : nil
}

private func tuple(_ env: EnvPointer?, _ term: Term, of size: Int32) -> UnsafePointer<Term>? {
    var count: Int32 = 0
    var elements: UnsafePointer<Term>?
    return enif_get_tuple(env, term, &count, &elements) != 0 && count == size ? elements : nil
}

private func account(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.Account? {
    if let number = number(env, term, as: UInt32.self) { return .number(number) }
    return bytes(env, term).map { .name($0) }
}

private func limit(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.Limit? {
    func value(_ term: Term) -> UInt64? {
        term == atoms.infinity ? .max : number(env, term, as: UInt64.self)
    }
    guard let parts = tuple(env, term, of: 3), let name = bytes(env, parts[0]), let soft = value(parts[1]),
        let hard = value(parts[2])
    else { return nil }
    return ProcessRequest.Limit(name: name, soft: soft, hard: hard)
}

private func stdio(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.Stdio? {
    if term == atoms.pipe { return .passed }
    if term == atoms.null { return .null }
    if term == atoms.stdout { return .sameAsOutput }
    if term == atoms.pty { return .terminal }
    guard let parts = tuple(env, term, of: 3), parts[0] == atoms.file, let path = bytes(env, parts[1]) else {
        return nil
    }
    return .file(path: path, isAppended: parts[2] == atoms.true)
}

/// From `{Rows, Columns}`.
func terminalSize(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.Terminal? {
    guard let parts = tuple(env, term, of: 2), let rows = number(env, parts[0], as: UInt16.self),
        let columns = number(env, parts[1], as: UInt16.self)
    else { return nil }
    return ProcessRequest.Terminal(rows: rows, columns: columns)
}

private func cgroup(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.ControlGroup? {
    guard let parts = tuple(env, term, of: 4), let path = bytes(env, parts[1]),
        let controllers = list(env, parts[2], bytes), let settings = list(env, parts[3], setting)
    else { return nil }
    return ProcessRequest.ControlGroup(
        isUnified: parts[0] == atoms.unified, path: path, controllers: controllers, settings: settings)
}

private func setting(_ env: EnvPointer?, _ term: Term) -> ProcessRequest.Setting? {
    guard let parts = tuple(env, term, of: 3), let controller = bytes(env, parts[0]),
        let key = bytes(env, parts[1]), let value = bytes(env, parts[2])
    else { return nil }
    return ProcessRequest.Setting(controller: controller, key: key, value: value)
}
