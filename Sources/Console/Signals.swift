import Glibc

/// Signals by which people end a program.
package enum Signals {
    /// All of them that the process began with heeding: one that is ignored, as by nohup, stays so.
    package static let ending = [SIGINT, SIGTERM, SIGHUP].filter { number in
        var action = sigaction()
        sigaction(number, nil, &action)
        let handler = unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
        return handler != unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
