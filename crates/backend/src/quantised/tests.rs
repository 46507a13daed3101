//! Against codes, scales and weights that MLX 0.32.4 printed (`mx.quantize`, `mx.dequantize`, on its CPU device).

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::DType;

/// Two rows of 64 numbers from -3.125 to 3.125; those of the second times 0.3.
fn numbers() -> HostTensor {
    let number = |i: i32| ((i * 37) % 101 - 50) as f32 / 16.0 * if i < 64 { 1.0 } else { 0.3 };
    HostTensor::f32(vec![2, 64], &(0..128).map(number).collect::<Vec<_>>())
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

fn bytes(words: &[u32]) -> Bytes {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// The codes, scales and biases of the second row, and its first four weights.
type Golden = (usize, &'static [u32], [f32; 2], [f32; 2], [f32; 4]);

const AFFINE: [Golden; 6] = [
    (
        2,
        &[0xe78e_379e, 0xe379_e78d, 0xde78_d379, 0x9e37_9e78],
        [0.459_375_02, 0.468_750_03],
        [-0.918_750_05, -0.937_500_06],
        [0.0, 0.459_375_02, -0.459_375_02, 0.0],
    ),
    (
        3,
        &[0x7315_787c, 0xe62a_f578, 0xf067_eaf0, 0xe1cc_55e1, 0xc398_abd5, 0x8731_9fab],
        [0.229_687_51, 0.234_375_01],
        [-0.918_750_05, -0.937_500_06],
        [0.0, 0.689_062_6, -0.689_062_54, 0.0],
    ),
    (
        4,
        &[0x0a4f_93d7, 0xf93e_82c6, 0xe82d_70b5, 0xd71b_5fa4, 0xc60a_4f93, 0xb5f9_3d82, 0xa4e8_2c60, 0x83d7_1b5f],
        [0.114_843_756, 0.117_187_51],
        [-0.918_750_05, -0.937_500_06],
        [-0.114_843_726, 0.574_218_75, -0.574_218_75, 0.114_843_756],
    ),
    (
        5,
        &[
            0x53e9_1b4e,
            0xb78f_0c05,
            0x86ca_fccf,
            0x88e4_0996,
            0xd385_75fe,
            0x0144_f625,
            0x236d_e3c3,
            0x65a1_aabd,
            0x7f99_f902,
            0x8974_e159,
        ],
        [0.057_421_878, 0.058_593_754],
        [-0.918_750_05, -0.937_500_06],
        [-0.114_843_726, 0.574_218_75, -0.574_218_75, 0.114_843_756],
    ),
    (
        6,
        &[
            0xbb8c_bd5d,
            0x7c18_02a4,
            0xf653_777c,
            0x3268_2b14,
            0xf9cf_e612,
            0xd1c1_2e5b,
            0x2947_a8cb,
            0x6786_bd80,
            0xad3f_2437,
            0x2023_1682,
            0xd57e_98fe,
            0x88ac_dc12,
        ],
        [0.028_710_939, 0.029_296_877],
        [-0.918_750_05, -0.937_500_06],
        [-0.086_132_824, 0.602_929_7, -0.602_929_7, 0.086_132_765],
    ),
    (
        8,
        &[
            0x8e2d_d574,
            0x00a8_47f0,
            0x7c1a_c361,
            0xf796_35dd,
            0x6908_b04f,
            0xe584_22cb,
            0x57ff_9e3d,
            0xd371_10b8,
            0x47ee_8d2d,
            0xc261_00a8,
            0x34dc_7b1a,
            0xb04f_f695,
            0x22ca_6908,
            0x9d3c_e483,
            0x10b7_56fe,
            0x8b2a_d271,
        ],
        [0.007_122_093_3, 0.007_156_489],
        [-0.918_750_05, -0.937_500_06],
        [-0.092_587_23, 0.598_255_9, -0.598_255_9, 0.092_587_23],
    ),
];

#[test]
fn codes_scales_and_biases_are_mlxs() {
    for (bits, codes, scales, biases, weights) in AFFINE {
        let q = Quantised::affine(&numbers(), bits, 32).unwrap();
        assert_eq!(words(q.codes())[codes.len()..], *codes, "{bits} bits");
        let Scales::Affine { scales: s, biases: b } = q.scales() else { panic!("{:?}", q.scales()) };
        assert_eq!((&s.to_f32()[2..], &b.to_f32()[2..]), (&scales[..], &biases[..]), "{bits} bits");
        // MLX rounds the product and the sum, here only the sum is: half a unit of the bias, 2^-24 * 0.94 = 5.6e-8.
        for (found, expected) in q.to_f32()[64..].iter().zip(weights) {
            assert!((found - expected).abs() <= 6e-8, "{bits} bits: {found} instead of {expected}");
        }
    }
}

#[test]
fn halves_keep_scales_as_halves_and_codes_in_steps_of_the_unrounded_scale() {
    let q = Quantised::affine(&numbers().cast(DType::F16), 6, 32).unwrap();
    let Scales::Affine { scales, biases } = q.scales() else { panic!("{:?}", q.scales()) };
    assert_eq!((scales.dtype(), scales.to_f32()[2..].to_vec()), (DType::F16, vec![0.028_717_041, 0.029_296_875]));
    assert_eq!(biases.to_f32()[2..], [-0.918_945_3, -0.937_5]);
    // The only word that differs from that of the numbers in f32.
    assert_eq!(words(q.codes())[12 + 3], 0x7268_2b14);
}

#[test]
fn floats_of_four_and_eight_bits_are_mlxs() {
    let (zeros, row) = (|n: usize| vec![0_u32; n], [0, 1, 2, 3, 31, 32, 63]);
    let check = |scheme: Scheme, codes: &[u32], scales: &[u8], weights: [f32; 7]| {
        let codes = bytes(&[zeros(codes.len()), codes.to_vec()].concat());
        let scales = Bytes::from([vec![0; scales.len()], scales.to_vec()].concat());
        let q = Quantised::new(scheme, [2, 64], codes, Scales::Bytes(scales)).unwrap();
        assert_eq!(row.map(|i| q.to_f32()[64 + i]), weights, "{scheme}");
    };
    let mxfp4 =
        [0xe2b5_1c49, 0x51c5_0d4a, 0x50d4_9d3b, 0x49d3_a62c, 0x4ae2_b51c, 0x3b51_c50d, 0x1c50_d49e, 0x0d49_d3b6];
    check(Scheme::Mxfp4, &mxfp4, &[125, 125], [-0.125, 0.5, -0.5, 0.125, 0.5, -0.5, 0.0]);
    let nvfp4 =
        [0xf4d7_1e69, 0x72d6_0e5b, 0x60e5_af4c, 0x69f5_c73d, 0x5bf3_d61e, 0x4c72_e69e, 0x3e60_e6bf, 0x1e6a_f5c7];
    let weights = [-0.078_125, 0.625, -0.625, 0.078_125, 0.625, -0.625, 0.070_312_5];
    check(Scheme::Nvfp4, &nvfp4, &[34, 34, 34, 33], weights);
    let mxfp8 = [
        0x5cf2_72dc,
        0xf769_ed75,
        0xd2f4_6fe6,
        0x7662_f172,
        0xe3f6_6beb,
        0x734a_f370,
        0xea76_65f0,
        0x71de_f56d,
        0xee74_5af2,
        0x6ee8_f768,
        0xf172_d6f4,
        0x6aec_7560,
        0xf370_e4f6,
        0x64f0_7300,
        0xf56c_ea76,
        0x56f2_71e0,
    ];
    let weights = [-0.093_75, 0.625, -0.625, 0.093_75, 0.562_5, -0.625, 0.054_687_5];
    check(Scheme::Mxfp8, &mxfp8, &[119, 119], weights);
}

#[test]
fn scales_of_one_byte_are_the_formats_own() {
    let values = [0, 1, 7, 8, 0x38, 0x7e, 0x81].map(float8);
    assert_eq!(values, [0.0, 0.001_953_125, 0.013_671_875, 0.015_625, 1.0, 448.0, -0.001_953_125]);
    assert!(float8(0x7f).is_nan() && float8(0xff).is_nan() && power_of_two(255).is_nan());
    assert_eq!([0, 1, 126, 127, 254].map(power_of_two), [-127, -126, -1, 0, 127].map(|e| 2.0_f64.powi(e) as f32));
}

#[test]
fn what_does_not_fit_is_refused() {
    let f32s = |n: usize| HostTensor::f32(vec![n], &vec![1.0; n]);
    let affine = |n: usize| Scales::Affine { scales: f32s(n), biases: f32s(n) };
    let new = |scheme, shape, codes: usize, scales| Quantised::new(scheme, shape, vec![0; codes].into(), scales);
    let four = Scheme::Affine { bits: 4, group: 32 };
    assert!(new(four, [2, 64], 64, affine(4)).is_ok());
    for (bits, group) in [(0, 32), (7, 32), (9, 64), (4, 0), (4, 16), (usize::MAX, usize::MAX)] {
        let found = new(Scheme::Affine { bits, group }, [2, 64], 64, affine(4));
        assert!(matches!(found, Err(Error::Setting { .. })), "{bits} {group}: {found:?}");
    }
    assert!(matches!(new(four, [2, 48], 48, affine(4)), Err(Error::Setting { .. })));
    assert!(matches!(new(four, [0, 64], 0, affine(0)), Err(Error::Empty { .. })));
    assert!(matches!(new(four, [2, 64], 63, affine(4)), Err(Error::Shape { expected: 64, found: 63, .. })));
    assert!(matches!(new(four, [2, 64], 64, affine(3)), Err(Error::Shape { what: "scales", .. })));
    assert!(matches!(new(four, [usize::MAX, 1 << 40], 64, affine(4)), Err(Error::Shape { .. })));
    let short = Scales::Affine { scales: f32s(4), biases: f32s(1) };
    assert!(matches!(new(four, [2, 64], 64, short), Err(Error::Shape { what: "biases", .. })));
    assert!(matches!(new(four, [2, 64], 64, Scales::Bytes(vec![0; 4].into())), Err(Error::Setting { .. })));
    assert!(matches!(new(Scheme::Mxfp4, [2, 64], 64, affine(4)), Err(Error::Setting { .. })));

    let nan = HostTensor::f32(vec![1, 32], &[&[0.0; 31][..], &[f32::NAN]].concat()).named("w");
    let error = Quantised::affine(&nan, 4, 32).unwrap_err().to_string();
    assert!(error.contains("w: the weight at element 31 is NaN"), "{error}");
    assert!(Quantised::affine(&f32s(64), 4, 32).is_err());
    assert!(Quantised::affine(&numbers(), 4, 128).is_err());
}

proptest! {
    /// No weight is further than half a step from its number (a step is at most a `most`th of the range, and the codes
    /// reach over all of it but half a step at the far end), and both the end away from zero and zero itself are exact.
    #[test]
    fn codes_stand_for_the_nearest_of_the_steps(
        values in prop::collection::vec(-100.0_f32..100.0, 32),
        bits in prop::sample::select(&AFFINE_BITS[1..]),
    ) {
        let q = Quantised::affine(&HostTensor::f32(vec![1, 32], &values), bits, 32).unwrap();
        let Scales::Affine { scales, .. } = q.scales() else { panic!("{q:?}") };
        let step = scales.to_f32()[0].abs();
        for (found, value) in q.to_f32().iter().zip(&values) {
            prop_assert!((found - value).abs() <= step * 1.001 , "{found} for {value} in steps of {step}");
        }
        let end = values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        prop_assert!(q.to_f32().contains(&end));
    }

    #[test]
    fn any_bytes_give_weights(codes in prop::collection::vec(any::<u8>(), 32), scale in any::<u16>()) {
        let scales = HostTensor::f32(vec![2], &[f16::from_bits(scale).to_f32(); 2]);
        let affine = Scales::Affine { scales: scales.clone(), biases: scales };
        let scheme = Scheme::Affine { bits: 4, group: 32 };
        prop_assert_eq!(Quantised::new(scheme, [2, 32], codes.into(), affine).unwrap().to_f32().len(), 64);
    }
}
