//! Thousandths of a processor as control groups count them (upstream: `pkg/kubelet/cm/helpers_linux.go`).

/// The period that quotas are for if nothing else is configured, in microseconds (`QuotaPeriod`).
pub const QUOTA_PERIOD_MICROS: i64 = 100_000;

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MILLIS_PER_CPU: i64 = 1000;
/// The kernel takes no less, in microseconds.
const MIN_QUOTA_MICROS: i64 = 1000;

/// The weight that goes with a request (`MilliCPUToShares`).
pub fn millis_to_shares(millis: u64) -> i64 {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    (millis.saturating_mul(SHARES_PER_CPU) / MILLIS_PER_CPU).clamp(MIN_SHARES, MAX_SHARES)
}

/// Time a period, in microseconds; 0 is no limit (`MilliCPUToQuota`).
pub fn millis_to_quota(millis: u64, period_micros: i64) -> i64 {
    if millis == 0 {
        return 0;
    }
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    (millis.saturating_mul(period_micros) / MILLIS_PER_CPU).max(MIN_QUOTA_MICROS)
}

/// What was asked for, from a weight; none if nothing was (`SharesToMilliCPU`).
pub fn shares_to_millis(shares: i64) -> Option<u64> {
    let millis = shares.saturating_mul(MILLIS_PER_CPU).checked_add(SHARES_PER_CPU - 1)? / SHARES_PER_CPU;
    (shares >= MIN_SHARES).then_some(millis).and_then(|millis| u64::try_from(millis).ok())
}

/// The limit, from a quota; none if there is none (`QuotaToMilliCPU`).
pub fn quota_to_millis(quota: i64, period_micros: i64) -> Option<u64> {
    let millis = quota.checked_mul(MILLIS_PER_CPU)?.checked_div(period_micros)?;
    u64::try_from(millis).ok().filter(|millis| *millis > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TestMilliCPUToShares`, and back as `TestSharesToMilliCPU` has it.
    #[test]
    fn shares() {
        let table = [(0, 2), (1, 2), (2, 2), (50, 51), (100, 102), (500, 512), (1000, 1024), (1500, 1536)];
        for (millis, shares) in table {
            assert_eq!(millis_to_shares(millis), shares, "{millis}");
        }
        assert_eq!(millis_to_shares(u64::MAX), MAX_SHARES);
        for (shares, millis) in
            [(1, None), (2, Some(2)), (102, Some(100)), (1024, Some(1000)), (i64::MAX, None)]
        {
            assert_eq!(shares_to_millis(shares), millis, "{shares}");
        }
    }

    /// `TestMilliCPUToQuota`, `TestQuotaToMilliCPU`.
    #[test]
    fn quota() {
        for (millis, quota) in [(0, 0), (5, 1000), (9, 1000), (10, 1000), (200, 20_000), (1500, 150_000)] {
            assert_eq!(millis_to_quota(millis, QUOTA_PERIOD_MICROS), quota, "{millis}");
        }
        for (quota, period, millis) in
            [(-1, 100_000, None), (0, 100_000, None), (5000, 0, None), (50_000, 100_000, Some(500))]
        {
            assert_eq!(quota_to_millis(quota, period), millis, "{quota} {period}");
        }
    }
}
