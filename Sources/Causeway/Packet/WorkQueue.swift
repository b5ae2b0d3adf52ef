/// Requests that wait for a handler, in order.
struct WorkQueue {
    // Those before `first` were taken.
    private var requests: [InboundRequest?] = []
    private var first = 0

    var isEmpty: Bool { first == requests.count }

    var count: Int { requests.count - first }

    /// The next one.
    var next: InboundRequest? { first < requests.count ? requests[first] : nil }

    mutating func append(_ request: InboundRequest) { requests.append(request) }

    mutating func popFirst() -> InboundRequest? {
        guard first < requests.count, let request = requests[first] else { return nil }
        requests[first] = nil
        first += 1
        if first == requests.count {
            requests.removeAll(keepingCapacity: requests.capacity <= 1024)
            first = 0
        } else if first >= 512, first * 2 >= requests.count {
            requests.removeFirst(first)
            first = 0
        }
        return request
    }

    mutating func removeAll() -> [InboundRequest] {
        defer { self = WorkQueue() }
        return requests.compactMap { $0 }
    }
}
