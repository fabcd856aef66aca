//! Every operation beside what it says, lane by lane.

use super::*;

/// What the loops may call: one function with the CPU's features.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
fn check() {
    let lanes = |x: F8| {
        let mut all = [0.0; 8];
        // SAFETY: eight elements.
        unsafe { x.store(all.as_mut_ptr()) };
        all
    };
    let four = |x: F4| {
        let mut all = [0.0; 4];
        // SAFETY: four elements.
        unsafe { x.store(all.as_mut_ptr()) };
        all
    };
    let bits = |x: [f32; 8]| x.map(f32::to_bits);
    // a not-a-number may have any payload
    let same = |got: [f32; 8], expected: [f32; 8]| {
        for (got, expected) in got.into_iter().zip(expected) {
            let both = got.is_nan() && expected.is_nan();
            assert!(
                both || got.to_bits() == expected.to_bits(),
                "{got} {expected}"
            );
        }
    };
    let nan = f32::NAN;
    let a = [1.5, -2.0, 0.0, -0.0, nan, 3.0, f32::INFINITY, 1e-40];
    let b = [0.25, 7.0, -0.0, 0.0, 1.0, nan, 2.0, 1e-41];
    let c = [1e-9, 3.0, 1.0, -0.0, 2.0, 2.0, 1.0, -1e-42];
    let (va, vb, vc) = (F8::from_array(a), F8::from_array(b), F8::from_array(c));
    let each = |f: &dyn Fn(f32, f32) -> f32| core::array::from_fn(|i| f(a[i], b[i]));
    same(lanes(F8::add(va, vb)), each(&|a, b| a + b));
    same(lanes(F8::sub(va, vb)), each(&|a, b| a - b));
    same(lanes(F8::mul(va, vb)), each(&|a, b| a * b));
    let greater = each(&|a, b| if a > b { a } else { b });
    assert_eq!(bits(lanes(F8::max(va, vb))), bits(greater));
    let less = each(&|a, b| if a < b { a } else { b });
    assert_eq!(bits(lanes(F8::min(va, vb))), bits(less));
    let fused: [f32; 8] = core::array::from_fn(|i| libm::fmaf(a[i], b[i], c[i]));
    same(lanes(F8::mul_add(va, vb, vc)), fused);
    let odd = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0);
    assert_eq!(
        mul_add(odd.0, odd.1, odd.2),
        libm::fmaf(odd.0, odd.1, odd.2)
    );
    assert_eq!(lanes(F8::splat(2.5)), [2.5; 8]);
    assert_eq!(bits(lanes(F8::zero())), [0; 8]);
    assert_eq!(F8::from_array(c).first(), 1e-9);
    assert_eq!(four(F8::from_array(c).lower()), c[..4]);
    assert_eq!(four(F8::from_lower(F4::splat(4.0)).lower()), [4.0; 4]);
    assert_eq!(four(F4::add(F4::splat(4.0), F4::splat(0.5))), [4.5; 4]);

    let rows: [[f32; 8]; 8] =
        core::array::from_fn(|r| core::array::from_fn(|k| 1.0 + (8 * r + k) as f32 / 3.0));
    let columns = F8::transpose(core::array::from_fn(|r| F8::from_array(rows[r]))).map(lanes);
    for (r, row) in rows.iter().enumerate() {
        for (k, x) in row.iter().enumerate() {
            assert_eq!(columns[k][r], *x);
        }
    }
    let tree = |x: [f32; 8]| {
        let half: [f32; 4] = core::array::from_fn(|i| x[i] + x[i + 4]);
        (half[0] + half[2]) + (half[1] + half[3])
    };
    for r in 0..8 {
        assert_eq!(F8::from_array(rows[r]).sum(), tree(rows[r]));
        let some: [[f32; 8]; 4] = core::array::from_fn(|i| rows[(r + i) % 8]);
        let sums = four(F8::sum_4(core::array::from_fn(|i| F8::from_array(some[i]))));
        assert_eq!(sums, some.map(tree));
    }

    for n in 0..10 {
        let mask = Mask::first(n);
        let n = n.min(8);
        let short = &rows[0][..n];
        let mut to = [9.0; 8];
        // SAFETY: of `short` and `to` only `n` elements are touched.
        unsafe {
            let some = F8::load_some(short.as_ptr(), mask);
            assert_eq!(&lanes(some)[..n], short);
            assert_eq!(lanes(some)[n..], [0.0; 8][n..]);
            F8::from_array(rows[1]).store_some(to.as_mut_ptr(), mask);
        }
        assert_eq!(to[..n], rows[1][..n]);
        assert_eq!(to[n..], [9.0; 8][n..]);
    }
    for all in [false, true] {
        // SAFETY: eight elements, all or none of which are read.
        let some = unsafe { F8::load_some(rows[2].as_ptr(), Mask::all_if(all)) };
        assert_eq!(lanes(some), if all { rows[2] } else { [0.0; 8] });
    }
    prefetch(rows[0].as_ptr());
}

#[test]
fn operations_are_what_they_say() {
    if crate::kernels::Fma::new().is_some() {
        // SAFETY: the token exists, so the CPU has what `check` needs.
        #[cfg_attr(target_arch = "aarch64", allow(unused_unsafe))]
        unsafe {
            check();
        }
    }
}
