//! Checks orders and works out their totals, exactly: amounts are ten-thousandths in 64 bits.

const std = @import("std");
const sluice = @import("sluice");

const lines_max = 500;
const quantity_max = 100_000;
const problems_max = 100;

pub const Plugin = struct {
    segments: sluice.Value,

    pub fn configure(setup: *sluice.Setup) !Plugin {
        const invalid: sluice.Problem = .{ .code = "invalid-configuration", .title = "Invalid configuration" };
        if (setup.config.kind() != .object) return setup.refuse(invalid);
        var segments: sluice.Value = .init("{}");
        var members = setup.config.members();
        while (members.next()) |member| {
            if (!member.named("segments") or member.value.kind() != .object) return setup.refuse(invalid);
            segments = member.value;
        }
        var all = segments.members();
        while (all.next()) |segment| {
            if (segment.value.kind() != .string) return setup.refuse(invalid);
        }
        return .{ .segments = segments };
    }

    pub fn judge(plugin: *const Plugin, order: *sluice.Order) !sluice.Verdict {
        var findings: Findings = .{ .order = order };
        const customer = try customerId(order);
        if (customer == null) {
            try findings.add("customer-id-missing", "The customer id is missing", "/customerId", .{});
        }
        var net: u64 = 0;
        var units: u64 = 0;
        var count: usize = 0;
        const lines = order.body.get("lines") orelse sluice.Value.init("null");
        const length = lines.count();
        if (lines.kind() != .array or length < 1 or length > lines_max) {
            try findings.add("lines-invalid", "The lines are not 1 to 500", "/lines", .{});
        } else {
            var all = lines.elements();
            while (all.next()) |line| : (count += 1) {
                if (line.kind() != .object) {
                    try findings.add("line-invalid", "The line is not an object", "/lines/{d}", .{count});
                    continue;
                }
                const units_of_line = quantity(line.get("quantity"));
                if (units_of_line == null) {
                    const title = "The quantity is not 1 to 100000";
                    try findings.add("quantity-invalid", title, "/lines/{d}/quantity", .{count});
                }
                const price = try unitPrice(order, line.get("unitPrice"));
                if (price == null) {
                    const title = "The unit price is not a decimal above zero";
                    try findings.add("unit-price-invalid", title, "/lines/{d}/unitPrice", .{count});
                }
                units += units_of_line orelse continue;
                net += (price orelse continue) * units_of_line.?;
            }
        }
        if (findings.all.items.len > 0) return .{ .reject = findings.all.items };

        const amount = try decimal(order, net);
        var patch = order.patch();
        const totals = "{{\"net\":\"{s}\",\"units\":{d},\"lines\":{d}}}";
        try patch.setRaw("/totals", try order.print(totals, .{ amount, units, count }));
        if (plugin.segments.get(customer.?)) |segment| {
            const text = try segment.string(order.arena);
            try patch.setRaw("/segment", try order.quoted(text.?));
        }
        try patch.header("order-net", amount);
        return patch.verdict();
    }
};

const Findings = struct {
    order: *sluice.Order,
    all: std.ArrayList(sluice.Problem) = .empty,

    fn add(
        findings: *Findings,
        code: []const u8,
        title: []const u8,
        comptime pointer: []const u8,
        position: anytype,
    ) !void {
        if (findings.all.items.len == problems_max) return;
        const problem: sluice.Problem = .{
            .code = code,
            .title = title,
            .pointer = try findings.order.print(pointer, position),
        };
        try findings.all.append(findings.order.arena, problem);
    }
};

fn customerId(order: *sluice.Order) !?[]const u8 {
    const member = order.body.get("customerId") orelse return null;
    const id = try member.string(order.arena) orelse return null;
    return if (id.len > 0) id else null;
}

fn quantity(member: ?sluice.Value) ?u64 {
    const number = (member orelse return null).integer(u64) orelse return null;
    return if (number >= 1 and number <= quantity_max) number else null;
}

/// A price in ten-thousandths.
fn unitPrice(order: *sluice.Order, member: ?sluice.Value) !?u64 {
    const text = try (member orelse return null).string(order.arena) orelse return null;
    const point = std.mem.findScalar(u8, text, '.');
    const whole = text[0 .. point orelse text.len];
    const fraction = if (point) |at| text[at + 1 ..] else "0";
    if (whole.len < 1 or whole.len > 7 or fraction.len < 1 or fraction.len > 4) return null;
    const price = (digits(whole, 0) orelse return null) * 10_000 + (digits(fraction, 4) orelse return null);
    return if (price > 0) price else null;
}

/// The value of digits, filled up with zeros on the right to a width.
fn digits(text: []const u8, width: usize) ?u64 {
    var value: u64 = 0;
    for (text) |c| {
        if (!std.ascii.isDigit(c)) return null;
        value = value * 10 + (c - '0');
    }
    for (text.len..@max(width, text.len)) |_| value *= 10;
    return value;
}

/// Ten-thousandths as a decimal with two decimals, and a third or fourth only where it is needed.
fn decimal(order: *sluice.Order, amount: u64) ![]const u8 {
    const text = try order.print("{d}.{d:0>4}", .{ amount / 10_000, amount % 10_000 });
    var len = text.len;
    for (0..2) |_| {
        if (text[len - 1] == '0') len -= 1 else break;
    }
    return text[0..len];
}

const an_order =
    \\{"customerId":"17850","lines":[{"quantity":6,"unitPrice":"2.55"},{"quantity":2.0,"unitPrice":"0.10"}]}
;

test "an order gets its totals and its customer's segment" {
    const outcome = try sluice.testing.judge(Plugin, "{\"segments\":{\"17850\":\"wholesale\"}}", an_order);
    defer outcome.deinit();
    try outcome.expect(
        \\{"seq":0,"verdict":"enrich","patch":[{"set":"/totals","value":{"net":"15.50","units":8,"lines":2}},
    ++
        \\{"set":"/segment","value":"wholesale"},{"header":"order-net","value":"15.50"}]}
    );
}

test "each finding is a problem with its pointer" {
    const order =
        \\{"lines":[{"quantity":1.5,"unitPrice":"1"},7,{"quantity":"3","unitPrice":"0.00"}]}
    ;
    const outcome = try sluice.testing.judge(Plugin, "{}", order);
    defer outcome.deinit();
    const problems = outcome.outcome.get("problems").?;
    const pointers = .{ "/customerId", "/lines/0/quantity", "/lines/1", "/lines/2/quantity", "/lines/2/unitPrice" };
    try std.testing.expectEqual(pointers.len, problems.count());
    inline for (pointers, 0..) |pointer, i| {
        try std.testing.expect(problems.at(i).?.get("pointer").?.is(pointer));
    }
}

test "the largest order that is right has an exact total" {
    var text: std.ArrayList(u8) = .empty;
    defer text.deinit(std.testing.allocator);
    try text.appendSlice(std.testing.allocator, "{\"customerId\":\"x\",\"lines\":[");
    for (0..lines_max) |i| {
        if (i > 0) try text.append(std.testing.allocator, ',');
        try text.appendSlice(std.testing.allocator, "{\"quantity\":1e5,\"unitPrice\":\"9999999.9999\"}");
    }
    try text.appendSlice(std.testing.allocator, "]}");
    const outcome = try sluice.testing.judge(Plugin, "{}", text.items);
    defer outcome.deinit();
    try std.testing.expect(outcome.outcome.pointer("/patch/0/value/net").?.is("499999999995000.00"));
}

test "a configuration that is not understood is refused" {
    const problems = "[{\"code\":\"invalid-configuration\",\"title\":\"Invalid configuration\"}]";
    for ([_][]const u8{ "{\"x\":1}", "{\"segments\":[]}", "{\"segments\":{\"a\":1}}", "{\"segments\":null}" }) |config| {
        try sluice.testing.expectRefused(Plugin, config, problems);
    }
}
