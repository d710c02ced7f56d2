import WireProtocol

/// A member in a list, `ID=HOST:PORT`.
package struct ListedMember: Hashable, Sendable {
    package var id: UInt64
    package var address: Address

    package init(id: UInt64, address: Address) {
        (self.id, self.address) = (id, address)
    }
}

/// Lists of members in their written form, `ID=HOST:PORT,...`: the one parser of what people give and directories hold.
package enum MemberList {
    /// What is wrong with a piece of a list.
    package struct Fault: Error, Equatable, CustomStringConvertible {
        package enum Kind: Equatable, Sendable {
            case form
            case id(String)
            case address(Address.Fault)
            case wildcard(Address)
            case sameID(UInt64)
            case sameAddress(Address)
        }

        package let piece: String
        package let kind: Kind

        package var description: String {
            switch kind {
            case .form: "'\(piece)' is not ID=HOST:PORT"
            case .id(let text): "'\(piece)': '\(text)' is no member's id: it is a number from 1 on"
            case .address(let fault): "'\(piece)': \(fault)"
            case .wildcard(let address):
                "'\(piece)': \(address) stands for all of a machine's addresses; give one that the others and the clients "
                    + "can connect to, and listen there with --listen \(address)"
            case .sameID(let id): "'\(piece)': two members have the id \(id)"
            case .sameAddress(let address): "'\(piece)': two members have the address \(address)"
            }
        }
    }

    /// Reads what somebody gave: it is recorded, and given to clients.
    ///
    /// - Throws: the first piece that is wrong.
    package static func parse(_ text: String) throws(Fault) -> [ListedMember] {
        var members: [ListedMember] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let piece = String(part)
            func fault(_ kind: Fault.Kind) -> Fault { Fault(piece: piece, kind: kind) }
            let member: ListedMember
            do throws(Fault.Kind) { member = try read(part) } catch { throw fault(error) }
            if member.address.isWildcard { throw fault(.wildcard(member.address)) }
            if members.contains(where: { $0.id == member.id }) { throw fault(.sameID(member.id)) }
            if members.contains(where: { $0.address == member.address }) { throw fault(.sameAddress(member.address)) }
            members.append(member)
        }
        return members
    }

    /// A list that a directory holds; an older program may have kept addresses there that are none.
    static func recorded(_ text: String) -> [ListedMember] {
        text.split(separator: ",").compactMap { part in
            do throws(Fault.Kind) { return try read(part) } catch { return nil }
        }
    }

    private static func read(_ piece: Substring) throws(Fault.Kind) -> ListedMember {
        let sides = piece.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard sides.count == 2 else { throw .form }
        guard let id = UInt64(sides[0]), id > 0, sides[0].utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else {
            throw .id(sides[0])
        }
        do throws(Address.Fault) { return ListedMember(id: id, address: try Address(parsing: sides[1])) } catch {
            throw .address(error)
        }
    }

    /// The list in the form in which members compare it.
    static func text(of members: [ListedMember]) -> String {
        members.sorted { $0.id < $1.id }.map { "\($0.id)=\($0.address)" }.joined(separator: ",")
    }
}

extension MemberList.Fault.Kind: Error {}
