//! Judges single orders in native tests, without a gateway.

const std = @import("std");
const Allocator = std.mem.Allocator;
const sluice = @import("sluice.zig");
const json = @import("json.zig");

/// The outcome of one order, as the gateway gets it.
pub const Outcome = struct {
    document: []u8,
    outcome: json.Value,

    pub fn deinit(outcome: Outcome) void {
        std.testing.allocator.free(outcome.document);
    }

    /// Fails the test if the outcome does not have this text, such as `{"seq":0,"verdict":"accept"}`.
    pub fn expect(outcome: Outcome, text: []const u8) !void {
        try std.testing.expectEqualStrings(text, outcome.outcome.raw);
    }
};

/// Configures a plugin and lets it judge one order; both are JSON objects.
pub fn judge(comptime Plugin: type, config: []const u8, order: []const u8) !Outcome {
    const answer = try ask(Plugin, config, order);
    const outcome = json.Value.init(answer).pointer("/outcomes/0") orelse {
        std.debug.print("the plugin refuses its configuration: {s}\n", .{answer});
        std.testing.allocator.free(answer);
        return error.Refused;
    };
    return .{ .document = answer, .outcome = outcome };
}

/// Fails the test if the configuration is not refused with these problems, a JSON array.
pub fn expectRefused(comptime Plugin: type, config: []const u8, problems: []const u8) !void {
    const answer = try ask(Plugin, config, "{}");
    defer std.testing.allocator.free(answer);
    const refused = json.Value.init(answer).get("refused") orelse return error.NotRefused;
    try std.testing.expectEqualStrings(problems, refused.raw);
}

fn ask(comptime Plugin: type, config: []const u8, order: []const u8) ![]u8 {
    const gpa = std.testing.allocator;
    for ([_][]const u8{ config, order }) |text| {
        if (!try std.json.validate(gpa, text)) return error.NotJson;
    }
    const document = try std.fmt.allocPrint(gpa, "{{\"abi\":1,\"config\":{s},\"events\":[{{\"seq\":0,\"id\":\"an-order\"," ++
        "\"route\":\"/orders\",\"kind\":\"OrderCreated\",\"received\":\"2026-01-02T03:04:05.678Z\",\"attempt\":1," ++
        "\"attrs\":{{}},\"order\":{s}}}]}}", .{ config, order });
    defer gpa.free(document);
    return sluice.process(Plugin, gpa, document);
}
