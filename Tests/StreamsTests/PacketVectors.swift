import Glibc

@testable import Streams

/// The lines of Tests/Packets/hex.txt, which the tests in Python and Erlang read as well.
enum PacketVector: Sendable {
    case number(UInt64, [UInt8], isPadded: Bool)
    case packet(PacketHead, payload: [UInt8], [UInt8])
    case malformed(String, [UInt8])

    static let all = lines(of: "Packets/hex.txt").compactMap(PacketVector.init)
    /// What libFuzzer has found to be of interest: Tests/Packets/corpus.txt.
    static let corpus = inputs(of: "Packets/corpus.txt")

    /// The inputs that a fuzzer keeps in a file of Tests.
    static func inputs(of name: String) -> [[UInt8]] {
        lines(of: name).filter { !$0.hasPrefix("#") }.map(bytes(hex:))
    }

    private init?(_ line: String) {
        let fields = line.split(separator: " ").map(String.init)
        guard let kind = fields.first, let hex = fields.last else { return nil }
        let bytes = Self.bytes(hex: hex)
        func number(_ place: Int) -> UInt64 { UInt64(fields[place]) ?? .max }
        switch kind {
        case "number", "padded": self = .number(number(1), bytes, isPadded: kind == "padded")
        case "malformed": self = .malformed(fields[1].split(separator: "_").joined(separator: " "), bytes)
        case "request", "response":
            let isRequest = kind == "request"
            let head = PacketHead(
                isRequest: isRequest, channel: number(1), tag: number(2), flags: number(3),
                requestType: isRequest ? number(4) : 0)
            let parts = fields[isRequest ? 5 : 4].split(separator: "*").map(String.init)
            if parts.count == 2, let count = Int(parts[0]) {
                let payload = [UInt8](repeating: Self.bytes(hex: parts[1])[0], count: count)
                self = .packet(head, payload: payload, bytes + payload)
            } else {
                self = .packet(head, payload: Self.bytes(hex: parts[0]), bytes)
            }
        default: return nil
        }
    }

    private static func bytes(hex: String) -> [UInt8] {
        let digits = hex.compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    private static func lines(of name: String) -> [String] {
        contents(of: name).split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The bytes of a file in Tests.
    private static func contents(of name: String) -> [UInt8] {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
        let file = open(root.joined(separator: "/") + "/" + name, O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65536)
        while case let count = read(file, &part, part.count), count > 0 { all += part[..<count] }
        return all
    }
}
