import Foundation
import LoadGenerator

/// A result as one page that needs nothing else: charts as SVG, readable by day and by night.
struct HTMLReport {
    private let report: Report

    init(_ report: Report) { self.report = report }

    func page() -> String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>banyan-load: \(escaped(report.workload)), \(grouped(report.operationsPerSecond)) per second</title>
        <style>\(Self.style)</style>
        </head>
        <body>
        <main>
        <header>
        <h1>\(escaped(report.workload)) <span>\(escaped(circumstances))</span></h1>
        </header>
        <section class="figures">\(figures.map { figure($0.0, $0.1) }.joined())</section>
        \(warning)
        <section><h2>Throughput, acknowledged requests a second</h2>\(throughput)</section>
        <section><h2>Latency over time, milliseconds</h2>\(latency)\(legend)</section>
        <section><h2>Latency by percentile, milliseconds</h2>\(percentiles)</section>
        \(operations)
        \(events)
        </main>
        </body>
        </html>
        """
    }

    // MARK: words and figures

    private var circumstances: String {
        let loop = report.rate.map { "open loop, \(grouped($0)) due a second" } ?? "closed loop"
        return "\(loop), \(report.clients) clients on \(report.connections) connections, \(report.size) bytes, "
            + "\(report.files) files, \(report.distribution), " + (report.reads.isEmpty ? "" : report.reads + ", ")
            + "\(Report.rounded(report.seconds)) s"
    }

    private var figures: [(String, String)] {
        let at = { (name: String) in short(report.latencyMs[name] ?? 0) + " ms" }
        return [
            ("per second", grouped(report.operationsPerSecond)), ("p50", at("p50")), ("p99", at("p99")),
            ("p99.9", at("p999")), ("longest", at("max")), ("refused", "\(report.refused)"),
            ("unknown", "\(report.unknown)"), ("tool's processor", Report.percent(report.toolThreadShare)),
        ]
    }

    private func figure(_ name: String, _ value: String) -> String {
        "<div><strong>\(escaped(value))</strong><span>\(escaped(name))</span></div>"
    }

    private var warning: String {
        var lines: [String] = []
        if let unsent = report.unsentText { lines.append("Never sent: \(unsent).") }
        if report.isLimitedByTool { lines.append("The tool is itself the limit: these figures are its own.") }
        return lines.map { "<p class=\"warning\">\(escaped($0))</p>" }.joined()
    }

    private var legend: String {
        "<p class=\"legend\"><i class=\"a\"></i>p50 <i class=\"b\"></i>p99 <i class=\"c\"></i>longest</p>"
    }

    private var operations: String {
        guard report.latencyMsByOperation.count > 1 else { return "" }
        let names = ["p50", "p90", "p99", "p999", "max"]
        let rows = report.latencyMsByOperation.sorted { $0.key < $1.key }.map { kind, latency in
            "<tr><th>\(escaped(kind))</th>" + names.map { "<td>\(latency[$0] ?? 0)</td>" }.joined() + "</tr>"
        }
        return "<section><h2>By operation, milliseconds</h2><table><tr><th></th>"
            + ["p50", "p90", "p99", "p99.9", "longest"].map { "<th>\($0)</th>" }.joined() + "</tr>"
            + rows.joined() + "</table></section>"
    }

    private var events: String {
        var rows = report.faults.map { ($0.second, Report.text(of: $0)) }
        rows += report.leaders.map { ($0.second, $0.member == 0 ? "no member leads" : "member \($0.member) leads") }
        guard !rows.isEmpty else { return "" }
        return "<section><h2>What happened</h2><table>"
            + rows.sorted { $0.0 < $1.0 }.map {
                "<tr><td>\(Report.rounded($0.0)) s</td><td class=\"text\">\(escaped($0.1))</td></tr>"
            }.joined() + "</table></section>"
    }

    // MARK: charts

    private var throughput: String {
        let points = report.timeline.map { ($0.second, $0.operationsPerSecond) }
        let errors = report.timeline.filter { $0.errors > 0 }.map { ($0.second, "\($0.errors) errors") }
        return chart([(points, "a")], marks: marks, errors: errors, unit: "a second")
    }

    private var latency: String {
        // A part of the time without an answer interrupts the lines: it has no latency.
        let parts = report.timeline.split { $0.max == nil }
        let lines = { (value: (LoadResult.Second) -> Double?, style: String) in
            parts.map { part in (points: part.map { ($0.second, value($0) ?? 0) }, style: style) }
        }
        return chart(
            lines({ $0.max }, "c") + lines({ $0.p99 }, "b") + lines({ $0.p50 }, "a"), marks: marks,
            lastX: report.timeline.last?.second, unit: "ms", isLogarithmic: true)
    }

    /// When another member led, and when faults struck.
    private var marks: [(x: Double, text: String, isFault: Bool)] {
        report.leaders.filter { $0.second > 0 }.map {
            ($0.second, $0.member == 0 ? "no leader" : "\($0.member) leads", false)
        } + report.faults.map { ($0.second, String($0.description.prefix { $0 != ":" }), true) }
    }

    /// How many nines: each tenth of the rest gets as much room as the one before.
    private var percentiles: String {
        let nines = { (percentile: Double) in -log10(max(1e-6, 1 - percentile / 100)) }
        let points = report.percentiles.filter { $0.percentile < 99.9999 }.map {
            (nines($0.percentile), $0.milliseconds)
        }
        let end = max(2, points.last?.0 ?? 2)
        let ticks = [0, 50, 90, 99, 99.9, 99.99, 99.999].map { (nines($0), "\($0)".replacing(/\.0$/, with: "") + " %") }
        return chart(
            [(points, "a")], marks: [], xTicks: ticks.filter { $0.0 <= end }, unit: "ms", dots: false,
            isLogarithmic: true)
    }

    private static let (width, height, left, bottom, top) = (900.0, 260.0, 64.0, 28.0, 16.0)

    private func chart(
        _ lines: [(points: [(Double, Double)], style: String)], marks: [(x: Double, text: String, isFault: Bool)],
        errors: [(Double, String)] = [], xTicks: [(Double, String)]? = nil, lastX: Double? = nil, unit: String,
        dots: Bool = true,
        isLogarithmic: Bool = false
    ) -> String {
        let all = lines.flatMap(\.points)
        guard let last = lastX ?? all.map(\.0).max(), let most = all.map(\.1).max(), all.count > 0 else {
            return "<p>Nothing was answered.</p>"
        }
        let xEnd = max(last, xTicks?.last?.0 ?? 0, 0.001)
        let yTicks =
            isLogarithmic
            ? Self.powers(from: all.map(\.1).filter { $0 > 0 }.min() ?? 1, to: most) : Self.steps(to: most)
        let scale = { (value: Double) in isLogarithmic ? log10(max(value, yTicks[0])) : value }
        let (yBegin, yEnd) = (scale(yTicks[0]), scale(yTicks[yTicks.count - 1]))
        let x = { Self.left + $0 / xEnd * (Self.width - Self.left - 12) }
        let y = { (value: Double) in
            Self.height - Self.bottom - (scale(value) - yBegin) / (yEnd - yBegin)
                * (Self.height - Self.bottom - Self.top)
        }
        var svg = "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\">"
        for value in yTicks {
            svg +=
                "<line class=\"grid\" x1=\"\(Self.left)\" x2=\"\(Self.width - 12)\" y1=\"\(at(y(value)))\" y2=\"\(at(y(value)))\"/>"
            svg += "<text class=\"y\" x=\"\(Self.left - 8)\" y=\"\(at(y(value) + 4))\">\(grouped(value))</text>"
        }
        let everySecond = max(1, (last / 12).rounded(.up))
        let seconds = stride(from: 0, through: xEnd, by: everySecond).map { ($0, "\(Int($0)) s") }
        for (value, text) in xTicks ?? seconds {
            svg += "<text class=\"x\" x=\"\(at(x(value)))\" y=\"\(at(Self.height - 8))\">\(text)</text>"
        }
        for (number, mark) in marks.enumerated() where mark.x <= xEnd {
            let style = mark.isFault ? "fault" : "mark"
            svg += "<line class=\"\(style)\" x1=\"\(at(x(mark.x)))\" x2=\"\(at(x(mark.x)))\" y1=\"\(Self.top)\" "
            svg += "y2=\"\(at(Self.height - Self.bottom))\"><title>\(escaped(mark.text))</title></line>"
            let isRight = x(mark.x) > Self.width * 0.75
            svg += "<text class=\"\(style)\" text-anchor=\"\(isRight ? "end" : "start")\" "
            svg +=
                "x=\"\(at(x(mark.x) + (isRight ? -4 : 4)))\" y=\"\(12 + 14 * (number % 4))\">\(escaped(mark.text))</text>"
        }
        for (points, style) in lines {
            let path = points.map { "\(at(x($0.0))),\(at(y($0.1)))" }.joined(separator: " ")
            svg += "<polyline class=\"\(style)\" points=\"\(path)\"/>"
            for point in points where dots && points.count <= 120 {
                svg += "<circle class=\"\(style)\" cx=\"\(at(x(point.0)))\" cy=\"\(at(y(point.1)))\" r=\"3\">"
                svg += "<title>\(Report.rounded(point.0)) s: \(grouped(point.1)) \(unit)</title></circle>"
            }
        }
        for (second, text) in errors {
            svg += "<circle class=\"error\" cx=\"\(at(x(second)))\" cy=\"\(at(y(0)))\" r=\"5\">"
            svg += "<title>\(Report.rounded(second)) s: \(escaped(text))</title></circle>"
        }
        return svg + "</svg>"
    }

    /// From zero to above `most`, at round numbers.
    private static func steps(to most: Double) -> [Double] {
        guard most > 0 else { return [0, 1] }
        let power = pow(10, floor(log10(most)))
        let step = [0.2, 0.5, 1].map { $0 * power }.first { most / $0 <= 5 } ?? power * 2
        return (0...Int((most / step).rounded(.up))).map { Double($0) * step }
    }

    /// The powers of ten around two numbers.
    private static func powers(from least: Double, to most: Double) -> [Double] {
        let first = Int(floor(log10(least)))
        return (first...max(first + 1, Int(log10(max(most, least)).rounded(.up)))).map { pow(10, Double($0)) }
    }

    /// Three digits.
    private func short(_ value: Double) -> String { String(format: value < 1000 ? "%.3g" : "%.0f", value) }

    private func at(_ value: Double) -> String { String(format: "%.1f", value) }

    private func grouped(_ value: Double) -> String {
        if value < 100 { return String(format: "%g", (value * 100).rounded() / 100) }
        var digits = Array(String(Int(value.rounded())))
        for position in stride(from: digits.count - 3, to: 0, by: -3) { digits.insert(",", at: position) }
        return String(digits)
    }

    private func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }

    private static let style = """
        :root { color-scheme: light dark; --ink: #1c2024; --paper: #fcfcfa; --faint: #d9dcdf; --soft: #5c6670;
          --a: #1a6fb5; --b: #b8560b; --c: #9aa3ab; --bad: #c0262d; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171a; --faint: #2d3338; --soft: #98a2ab;
          --a: #62b0ee; --b: #f0a35a; --c: #6b757e; --bad: #ff6b6b; } }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
        main { max-width: 960px; margin: 0 auto; padding: 24px 20px 48px; }
        h1 { font-size: 26px; margin: 0 0 16px; } h1 span { display: block; font-size: 15px; font-weight: 400; color: var(--soft); }
        h2 { font-size: 16px; margin: 32px 0 8px; }
        .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(105px, 1fr)); gap: 12px; }
        .figures div { border-top: 2px solid var(--faint); padding-top: 6px; }
        .figures strong { display: block; font-size: 20px; font-variant-numeric: tabular-nums; white-space: nowrap; }
        .figures span, .legend { color: var(--soft); font-size: 13px; }
        .warning { border-left: 4px solid var(--bad); padding-left: 12px; }
        svg { width: 100%; height: auto; display: block; }
        svg text { fill: var(--soft); font-size: 12px; } svg text.y { text-anchor: end; } svg text.x { text-anchor: middle; }
        .grid { stroke: var(--faint); } .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
        .fault { stroke: var(--bad); } text.fault { fill: var(--bad); stroke: none; } text.mark { stroke: none; }
        polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
        polyline.a { stroke: var(--a); } polyline.b { stroke: var(--b); } polyline.c { stroke: var(--c); }
        circle.a { fill: var(--a); } circle.b { fill: var(--b); } circle.c { fill: var(--c); } circle.error { fill: var(--bad); }
        .legend i { display: inline-block; width: 12px; height: 12px; border-radius: 6px; margin: 0 4px 0 12px; }
        i.a { background: var(--a); } i.b { background: var(--b); } i.c { background: var(--c); }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th, td { text-align: right; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--faint); } td.text { text-align: left; }
        td:first-child { white-space: nowrap; vertical-align: top; }
        """
}
