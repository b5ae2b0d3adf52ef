import Glibc
import Streams

/// As whom a program runs; what is nil stays as it is.
struct Identity {
    var user: UInt32?
    var group: UInt32?
    var groups: [UInt32]?

    /// Finds what a request asks for.
    init(_ request: ProcessRequest) throws(Failure) {
        if request.user == nil, request.group == nil, request.groups == nil { return }
        let accounts = Accounts()
        if let account = request.user {
            let entry = try accounts.user(account, hasGroup: request.group != nil)
            user = entry.user
            group = entry.group
            groups = entry.groups
        }
        if let account = request.group {
            let number = try accounts.group(account, .group)
            // The user's other groups stay with it.
            if let primary = group { groups = groups?.map { $0 == primary ? number : $0 } }
            group = number
            groups = groups ?? [number]
        }
        if let wanted = request.groups {
            var numbers: [UInt32] = []
            for account in wanted { numbers.append(try accounts.group(account, .groups)) }
            groups = numbers
        }
        if geteuid() == 0 { return }
        // Who is nobody else already need not ask for it, and may not.
        if user ?? geteuid() == geteuid(), group ?? getegid() == getegid(), request.groups == nil {
            (user, group, groups) = (nil, nil, nil)
        }
    }
}

/// Users and groups, from the files of the system.
private struct Accounts {
    private let users = lines(of: "/etc/passwd")
    private let allGroups = lines(of: "/etc/group")

    struct User {
        var user: UInt32
        var group: UInt32?
        var groups: [UInt32]
    }

    func user(_ account: ProcessRequest.Account, hasGroup: Bool) throws(Failure) -> User {
        let entry = find(account, in: users)
        guard let number = entry?.number ?? account.number else {
            throw Failure(.user, ENOENT, "there is no user \(account)")
        }
        guard number != 0 else { throw Failure(.user, EPERM, "a program is not given to root") }
        guard let entry, let group = entry.field(3).flatMap(UInt32.init(_:)) else {
            if hasGroup { return User(user: number, group: nil, groups: []) }
            throw Failure(.user, EINVAL, "there is no user \(number) whose group is known: say gid, too")
        }
        let others = allGroups.filter { $0.members.contains(entry.name) }.compactMap(\.number)
        return User(user: number, group: group, groups: [group] + others.filter { $0 != group })
    }

    func group(_ account: ProcessRequest.Account, _ step: GuardianEvent.Step) throws(Failure) -> UInt32 {
        guard let number = find(account, in: allGroups)?.number ?? account.number else {
            throw Failure(step, ENOENT, "there is no group \(account)")
        }
        guard number != 0 else { throw Failure(step, EPERM, "a program is not given to the group root") }
        return number
    }

    private func find(_ account: ProcessRequest.Account, in entries: [Entry]) -> Entry? {
        if case .name(let name) = account, let entry = entries.first(where: { $0.name[...] == name[...] }) {
            return entry
        }
        guard let number = account.number else { return nil }
        return entries.first { $0.number == number }
    }

    private static func lines(of path: String) -> [Entry] {
        contents(of: path).split(separator: UInt8(ascii: "\n")).map { Entry($0) }
    }

    /// A line of either file: `name:password:number:…`.
    struct Entry {
        private let fields: [ArraySlice<UInt8>]

        init(_ line: ArraySlice<UInt8>) {
            fields = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        }

        var name: [UInt8] { fields.first.map(Array.init) ?? [] }
        var number: UInt32? { field(2).flatMap(UInt32.init(_:)) }
        /// Of a group.
        var members: [[UInt8]] {
            fields.count > 3 ? fields[3].split(separator: UInt8(ascii: ",")).map(Array.init) : []
        }

        func field(_ index: Int) -> String? {
            index < fields.count ? String(decoding: fields[index], as: UTF8.self) : nil
        }
    }
}

extension ProcessRequest.Account: CustomStringConvertible {
    /// What it was called.
    public var description: String {
        switch self {
        case .number(let number): "\(number)"
        case .name(let name): String(decoding: name, as: UTF8.self)
        }
    }

    /// Its number, which may be written as text, in hexadecimal digits too.
    fileprivate var number: UInt32? {
        switch self {
        case .number(let number): return number
        case .name(let name):
            let text = String(decoding: name, as: UTF8.self)
            if text.hasPrefix("0x") { return UInt32(text.dropFirst(2), radix: 16) }  // trap-ok: nil
            return UInt32(text)  // trap-ok: nil
        }
    }
}
