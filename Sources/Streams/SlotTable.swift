/// A table of places that are used again, each use with a new generation.
///
/// Finding, adding and removing cost the same at any size. It belongs to one thread.
public struct SlotTable<Element> {
    @usableFromInline struct Slot {
        @usableFromInline var element: Element?
        @usableFromInline var generation: UInt32
    }

    @usableFromInline var slots: [Slot] = []
    @usableFromInline var free: [UInt32] = []

    /// An empty table.
    public init() {}

    /// How many elements there are.
    @inlinable public var count: Int { slots.count - free.count }

    /// Adds an element, or nothing when 2^32 - 1 places are in use.
    public mutating func insert(_ element: Element) -> Poller.Token? {
        if let slot = free.popLast() {
            let index = Int(slot)
            slots[index].element = element
            return Poller.Token(slot: slot, generation: slots[index].generation)
        }
        // The last number is nobody's: the doorbell uses it.
        guard let slot = UInt32(exactly: slots.count), slot != .max else { return nil }
        slots.append(Slot(element: element, generation: 1))
        return Poller.Token(slot: slot, generation: 1)
    }

    /// The element that was given this token, unless it was removed since.
    @inlinable
    public subscript(token: Poller.Token) -> Element? {
        let index = Int(token.slot)
        guard index < slots.count, slots[index].generation == token.generation else { return nil }
        return slots[index].element
    }

    /// Takes an element out; its token and every event that still carries it are void from now on.
    public mutating func remove(_ token: Poller.Token) {
        let index = Int(token.slot)
        guard index < slots.count, slots[index].generation == token.generation,
            slots[index].element != nil
        else { return }
        slots[index].element = nil
        slots[index].generation &+= 1
        free.append(token.slot)
    }

    /// All elements, oldest place first.
    public var elements: [Element] { slots.compactMap(\.element) }
}
