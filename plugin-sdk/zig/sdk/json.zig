//! JSON as it was written: a value is a piece of text, and reading it makes no copy and rounds no number.
//!
//! The gateway has checked the text, so nothing here checks it again: what is no JSON is read as an absent member.

const std = @import("std");
const Allocator = std.mem.Allocator;

pub const Kind = enum { object, array, string, number, boolean, null };

/// One JSON value, by its exact text.
pub const Value = struct {
    /// The text, without white space around it. Numbers keep their digits: `2.50` stays `2.50`.
    raw: []const u8,

    pub fn init(text: []const u8) Value {
        return .{ .raw = std.mem.trim(u8, text, " \t\r\n") };
    }

    pub fn kind(value: Value) Kind {
        if (value.raw.len == 0) return .null;
        return switch (value.raw[0]) {
            '{' => .object,
            '[' => .array,
            '"' => .string,
            't', 'f' => .boolean,
            'n' => .null,
            else => .number,
        };
    }

    pub fn isNull(value: Value) bool {
        return value.kind() == .null;
    }

    pub fn boolean(value: Value) ?bool {
        return if (value.kind() == .boolean) value.raw[0] == 't' else null;
    }

    /// The digits of a number as they were written; nothing if it is no number.
    pub fn number(value: Value) ?[]const u8 {
        return if (value.kind() == .number) value.raw else null;
    }

    /// A number with an integral value, however it was written: `2`, `2.0` and `2e0` are all 2. Nothing if it is
    /// no number, not integral, or does not fit the type. No float is involved.
    pub fn integer(value: Value, comptime T: type) ?T {
        const text = value.number() orelse return null;
        const magnitude = integral(text) orelse return null;
        if (text[0] != '-') return std.math.cast(T, magnitude);
        return std.math.cast(T, -@as(i128, magnitude));
    }

    /// A string without its escapes; nothing if it is no string. Without escapes it is a part of the order,
    /// else it is made in `arena`.
    pub fn string(value: Value, arena: Allocator) Allocator.Error!?[]const u8 {
        if (value.kind() != .string) return null;
        const inner = value.raw[1 .. value.raw.len - 1];
        if (std.mem.findScalar(u8, inner, '\\') == null) return inner;
        var text: std.ArrayList(u8) = try .initCapacity(arena, inner.len);
        var letters: Letters = .{ .text = inner };
        while (letters.next()) |letter| text.appendSliceAssumeCapacity(letter.slice());
        return text.items;
    }

    /// Whether it is a string and says this.
    pub fn is(value: Value, text: []const u8) bool {
        return value.kind() == .string and sameText(value.raw, text);
    }

    /// A member of an object by its name; nothing if it is absent or this is no object.
    pub fn get(value: Value, name: []const u8) ?Value {
        var all = value.members();
        while (all.next()) |member| if (member.named(name)) return member.value;
        return null;
    }

    /// An element of an array by its position; nothing if it is absent or this is no array.
    pub fn at(value: Value, index: usize) ?Value {
        var all = value.elements();
        var passed: usize = 0;
        while (all.next()) |element| : (passed += 1) if (passed == index) return element;
        return null;
    }

    /// What a JSON Pointer (RFC 6901) leads to, such as `/lines/0/quantity`; nothing if it leads nowhere.
    pub fn pointer(value: Value, path: []const u8) ?Value {
        if (path.len == 0) return value;
        if (path[0] != '/') return null;
        var tokens = std.mem.splitScalar(u8, path[1..], '/');
        var found = value;
        while (tokens.next()) |token| {
            found = switch (found.kind()) {
                .object => found.child(token) orelse return null,
                .array => found.at(position(token) orelse return null) orelse return null,
                else => return null,
            };
        }
        return found;
    }

    /// The members of an object, in their sequence; none if this is no object.
    pub fn members(value: Value) Members {
        return .{ .scan = .{ .text = if (value.kind() == .object) value.raw else "" } };
    }

    /// The elements of an array, in their sequence; none if this is no array.
    pub fn elements(value: Value) Elements {
        return .{ .scan = .{ .text = if (value.kind() == .array) value.raw else "" } };
    }

    /// How many members or elements there are.
    pub fn count(value: Value) usize {
        var n: usize = 0;
        if (value.kind() == .object) {
            var all = value.members();
            while (all.next()) |_| n += 1;
        } else {
            var all = value.elements();
            while (all.next()) |_| n += 1;
        }
        return n;
    }

    fn child(value: Value, token: []const u8) ?Value {
        if (std.mem.findScalar(u8, token, '~') == null) return value.get(token);
        var all = value.members();
        while (all.next()) |candidate| if (candidate.isToken(token)) return candidate.value;
        return null;
    }

    fn position(token: []const u8) ?usize {
        if (token.len == 0 or token.len > 1 and token[0] == '0') return null;
        for (token) |c| if (!std.ascii.isDigit(c)) return null;
        return std.fmt.parseInt(usize, token, 10) catch null;
    }
};

/// A member of an object.
pub const Member = struct {
    name: Value,
    value: Value,

    pub fn named(member: Member, text: []const u8) bool {
        return sameText(member.name.raw, text);
    }

    /// Compares with a token of a JSON Pointer, where `~0` is `~` and `~1` is `/`.
    fn isToken(member: Member, token: []const u8) bool {
        var letters: Letters = .{ .text = member.name.raw[1 .. member.name.raw.len - 1] };
        var rest = token;
        while (letters.next()) |letter| {
            const own = letter.slice();
            const escape: []const u8 = if (own[0] == '~') "~0" else if (own[0] == '/') "~1" else own;
            if (!std.mem.startsWith(u8, rest, escape)) return false;
            rest = rest[escape.len..];
        }
        return rest.len == 0;
    }
};

pub const Members = struct {
    scan: Scan,

    pub fn next(all: *Members) ?Member {
        if (!all.scan.more()) return null;
        const name = all.scan.name();
        return .{ .name = name, .value = all.scan.value() };
    }
};

pub const Elements = struct {
    scan: Scan,

    pub fn next(all: *Elements) ?Value {
        return if (all.scan.more()) all.scan.value() else null;
    }
};

/// A walk over the parts of an object or array.
pub const Scan = struct {
    text: []const u8,
    at: usize = 0,

    /// Steps over the opening bracket or the comma; false at the closing bracket.
    pub fn more(scan: *Scan) bool {
        scan.space();
        if (scan.closed()) return false;
        scan.at += 1;
        scan.space();
        return !scan.closed();
    }

    fn closed(scan: *const Scan) bool {
        return scan.at >= scan.text.len or scan.text[scan.at] == ']' or scan.text[scan.at] == '}';
    }

    /// Steps over a member's name and its colon.
    pub fn name(scan: *Scan) Value {
        const text = scan.value();
        scan.space();
        scan.at += 1;
        scan.space();
        return text;
    }

    fn space(scan: *Scan) void {
        while (scan.at < scan.text.len and std.ascii.isWhitespace(scan.text[scan.at])) scan.at += 1;
    }

    pub fn value(scan: *Scan) Value {
        const start = @min(scan.at, scan.text.len);
        scan.at = end(scan.text, start);
        return .{ .raw = scan.text[start..scan.at] };
    }
};

/// Where the value that begins at `start` ends.
fn end(text: []const u8, start: usize) usize {
    var i = start;
    var depth: usize = 0;
    while (i < text.len) {
        switch (text[i]) {
            '"' => {
                i = endOfString(text, i);
                if (depth == 0) return i;
                continue;
            },
            '{', '[' => depth += 1,
            '}', ']' => {
                if (depth <= 1) return if (depth == 0) i else i + 1;
                depth -= 1;
            },
            ',', ':', ' ', '\t', '\r', '\n' => if (depth == 0) return i,
            else => {},
        }
        i += 1;
    }
    return i;
}

fn endOfString(text: []const u8, start: usize) usize {
    var i = start + 1;
    while (i < text.len) : (i += 1) switch (text[i]) {
        '"' => return i + 1,
        '\\' => i += 1,
        else => {},
    };
    return text.len;
}

/// Whether a string with its quotes and escapes says this.
fn sameText(raw: []const u8, text: []const u8) bool {
    if (raw.len < 2) return false;
    const inner = raw[1 .. raw.len - 1];
    if (std.mem.findScalar(u8, inner, '\\') == null) return std.mem.eql(u8, inner, text);
    var letters: Letters = .{ .text = inner };
    var rest = text;
    while (letters.next()) |letter| {
        if (!std.mem.startsWith(u8, rest, letter.slice())) return false;
        rest = rest[letter.slice().len..];
    }
    return rest.len == 0;
}

const Letter = struct {
    bytes: [4]u8,
    len: u3,

    fn slice(letter: *const Letter) []const u8 {
        return letter.bytes[0..letter.len];
    }

    fn of(code: u21) Letter {
        var letter: Letter = .{ .bytes = undefined, .len = 0 };
        // A surrogate without its other half is none of Unicode's characters.
        letter.len = std.unicode.utf8Encode(code, &letter.bytes) catch
            (std.unicode.utf8Encode(std.unicode.replacement_character, &letter.bytes) catch unreachable);
        return letter;
    }
};

/// A walk over the text of a string, with its escapes resolved.
const Letters = struct {
    text: []const u8,
    at: usize = 0,

    fn next(letters: *Letters) ?Letter {
        if (letters.at >= letters.text.len) return null;
        const c = letters.text[letters.at];
        letters.at += 1;
        if (c != '\\' or letters.at >= letters.text.len) return .{ .bytes = .{ c, 0, 0, 0 }, .len = 1 };
        const escape = letters.text[letters.at];
        letters.at += 1;
        return .of(switch (escape) {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => 0x08,
            'f' => 0x0c,
            'u' => letters.unicode(),
            else => escape,
        });
    }

    fn unicode(letters: *Letters) u21 {
        const high = letters.hex();
        if (high < 0xd800 or high > 0xdbff) return high;
        if (!std.mem.startsWith(u8, letters.text[letters.at..], "\\u")) return high;
        const before = letters.at;
        letters.at += 2;
        const low = letters.hex();
        if (low >= 0xdc00 and low <= 0xdfff) return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        letters.at = before;
        return high;
    }

    fn hex(letters: *Letters) u21 {
        const stop = @min(letters.at + 4, letters.text.len);
        defer letters.at = stop;
        return std.fmt.parseInt(u16, letters.text[letters.at..stop], 16) catch std.unicode.replacement_character;
    }
};

/// The magnitude of a number that has no fraction.
fn integral(text: []const u8) ?u64 {
    const far = 1_000_000_000;
    var exponent: i64 = 0;
    var digits = text;
    if (std.mem.findAny(u8, text, "eE")) |e| {
        digits = text[0..e];
        const negative = text[e + 1] == '-';
        for (text[e + 1 ..]) |c| {
            if (std.ascii.isDigit(c)) exponent = @min(exponent * 10 + (c - '0'), far);
        }
        if (negative) exponent = -exponent;
    }
    // Digits from the first to the last that is not zero, and the power of ten of the last.
    var significant: u64 = 0;
    var zeros: u32 = 0;
    var too_long = false;
    var after_point = false;
    for (digits) |c| {
        if (c == '.') after_point = true;
        if (!std.ascii.isDigit(c)) continue;
        if (after_point) exponent -= 1;
        zeros += 1;
        if (c == '0') continue;
        while (zeros > 0 and !too_long) : (zeros -= 1) {
            const tens = @mulWithOverflow(significant, 10);
            significant = tens[0];
            too_long = tens[1] != 0;
        }
        zeros = 0;
        const sum = @addWithOverflow(significant, c - '0');
        significant = sum[0];
        too_long = too_long or sum[1] != 0;
    }
    if (significant == 0 and !too_long) return 0;
    exponent += zeros;
    if (too_long or exponent < 0) return null;
    while (exponent > 0) : (exponent -= 1) {
        significant = std.math.mul(u64, significant, 10) catch return null;
    }
    return significant;
}

test "numbers are integers by their value and not by their form" {
    const cases = .{
        .{ "2", 2 },              .{ "2.0", 2 },     .{ "2e0", 2 },       .{ "20e-1", 2 },
        .{ "0.00002E+5", 2 },     .{ "1e5", 100000 }, .{ "-7.00", -7 },   .{ "-0", 0 },
        .{ "0e999999999999", 0 }, .{ "1000000000000000000000000000e-25", 100 },
        .{ "9223372036854775807", std.math.maxInt(i64) },
    };
    inline for (cases) |case| {
        try std.testing.expectEqual(@as(?i64, case[1]), Value.init(case[0]).integer(i64));
    }
    for ([_][]const u8{
        "1.5", "1e-400", "1e400", "1.0000000000000000000001", "9223372036854775808", "18446744073709551616",
        "100000000000000000000000000000.5", "\"2\"", "null",
    }) |text| {
        try std.testing.expectEqual(@as(?i64, null), Value.init(text).integer(i64));
    }
    try std.testing.expectEqual(@as(?u8, null), Value.init("256").integer(u8));
    try std.testing.expectEqual(@as(?u8, null), Value.init("-1").integer(u8));
}

test "members are found by pointer with their bytes" {
    const order = Value.init(
        \\ {"a" : {"b/c":[10, 1.50 ,{"~":null}], "\u0064":"x"},"n":123456789012345678901234567890, "e":{}, "f":[ ]}
    );
    const raw = .{
        .{ "/a/b~1c/1", "1.50" }, .{ "/a/b~1c/2/~0", "null" }, .{ "/n", "123456789012345678901234567890" },
        .{ "/a/d", "\"x\"" },     .{ "/e", "{}" },             .{ "/a/b~1c/0", "10" },
    };
    inline for (raw) |case| try std.testing.expectEqualStrings(case[1], order.pointer(case[0]).?.raw);
    for ([_][]const u8{ "/x", "/a/b", "/a/b~1c/3", "/a/b~1c/01", "/a/b~1c/-", "/n/0", "a", "/f/0", "/e/x" }) |absent| {
        try std.testing.expectEqual(@as(?Value, null), order.pointer(absent));
    }
    try std.testing.expectEqual(4, order.count());
    try std.testing.expectEqual(0, order.get("f").?.count());
}

test "strings are read without their escapes" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const value = Value.init(
        \\"\u00e9\ud83d\ude00\n\"\\\/é"
    );
    try std.testing.expectEqualStrings("é😀\n\"\\/é", (try value.string(arena.allocator())).?);
    try std.testing.expect(value.is("é😀\n\"\\/é"));
    try std.testing.expect(!value.is("é😀\n\"\\/é."));
    try std.testing.expect(!value.is("é😀\n\"\\/"));
    try std.testing.expectEqualStrings("", (try Value.init("\"\"").string(arena.allocator())).?);
    try std.testing.expectEqual(@as(?[]const u8, null), try Value.init("2").string(arena.allocator()));
}
