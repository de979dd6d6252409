//! The ISO 4217 codes in use.

/// Codes of currencies, funds and metals in use in 2026, sorted. Without `XTS` (for tests) and `XXX` (no currency):
/// nothing can be ordered in them.
const CODES: [&[u8; 3]; 176] = [
    b"AED", b"AFN", b"ALL", b"AMD", b"AOA", b"ARS", b"AUD", b"AWG", b"AZN", b"BAM", b"BBD", b"BDT", b"BHD", b"BIF",
    b"BMD", b"BND", b"BOB", b"BOV", b"BRL", b"BSD", b"BTN", b"BWP", b"BYN", b"BZD", b"CAD", b"CDF", b"CHE", b"CHF",
    b"CHW", b"CLF", b"CLP", b"CNY", b"COP", b"COU", b"CRC", b"CUP", b"CVE", b"CZK", b"DJF", b"DKK", b"DOP", b"DZD",
    b"EGP", b"ERN", b"ETB", b"EUR", b"FJD", b"FKP", b"GBP", b"GEL", b"GHS", b"GIP", b"GMD", b"GNF", b"GTQ", b"GYD",
    b"HKD", b"HNL", b"HTG", b"HUF", b"IDR", b"ILS", b"INR", b"IQD", b"IRR", b"ISK", b"JMD", b"JOD", b"JPY", b"KES",
    b"KGS", b"KHR", b"KMF", b"KPW", b"KRW", b"KWD", b"KYD", b"KZT", b"LAK", b"LBP", b"LKR", b"LRD", b"LSL", b"LYD",
    b"MAD", b"MDL", b"MGA", b"MKD", b"MMK", b"MNT", b"MOP", b"MRU", b"MUR", b"MVR", b"MWK", b"MXN", b"MXV", b"MYR",
    b"MZN", b"NAD", b"NGN", b"NIO", b"NOK", b"NPR", b"NZD", b"OMR", b"PAB", b"PEN", b"PGK", b"PHP", b"PKR", b"PLN",
    b"PYG", b"QAR", b"RON", b"RSD", b"RUB", b"RWF", b"SAR", b"SBD", b"SCR", b"SDG", b"SEK", b"SGD", b"SHP", b"SLE",
    b"SOS", b"SRD", b"SSP", b"STN", b"SVC", b"SYP", b"SZL", b"THB", b"TJS", b"TMT", b"TND", b"TOP", b"TRY", b"TTD",
    b"TWD", b"TZS", b"UAH", b"UGX", b"USD", b"USN", b"UYI", b"UYU", b"UYW", b"UZS", b"VED", b"VES", b"VND", b"VUV",
    b"WST", b"XAD", b"XAF", b"XAG", b"XAU", b"XBA", b"XBB", b"XBC", b"XBD", b"XCD", b"XCG", b"XDR", b"XOF", b"XPD",
    b"XPF", b"XPT", b"XSU", b"XUA", b"YER", b"ZAR", b"ZMW", b"ZWG",
];

/// Whether this is the code of a currency in use. Codes are in capital letters.
pub(crate) fn is_code(code: &str) -> bool {
    <&[u8; 3]>::try_from(code.as_bytes()).is_ok_and(|code| CODES.binary_search(&code).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_letters() {
        assert!(CODES.is_sorted_by(|left, right| left < right));
        assert!(CODES.iter().all(|code| code.iter().all(u8::is_ascii_uppercase)));
    }

    #[test]
    fn codes_in_use_are_codes() {
        for code in ["EUR", "GBP", "USD", "JPY", "AED", "ZWG", "XCG", "XAU"] {
            assert!(is_code(code), "{code}");
        }
        for odd in ["", "eur", "EU", "EURO", "E€", "XXX", "XTS", "DEM", "HRK", "ZZZ", " EUR"] {
            assert!(!is_code(odd), "{odd}");
        }
    }
}
