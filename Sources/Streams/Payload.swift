/// Bytes on their way, and who owns them: subclasses know how they are given back.
///
/// The bytes never change and never move. The last reference may be given up on any thread.
@safe
open class Payload: @unchecked Sendable {
    /// The bytes.
    public final let bytes: UnsafeRawBufferPointer
    /// How many they are.
    public final let count: Int

    /// Bytes that stay valid until the object's end.
    public init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = unsafe bytes
        count = bytes.count
    }
}

/// A copy of bytes.
public final class CopiedPayload: Payload, @unchecked Sendable {
    /// Copies them.
    public init(copying bytes: UnsafeRawBufferPointer) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        unsafe copy.copyMemory(from: bytes)
        unsafe super.init(UnsafeRawBufferPointer(copy))
    }

    deinit { unsafe bytes.deallocate() }
}
