extern crate std;

use std::vec::Vec;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::*;

fn frame<M: Serialize>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    let done: Result<(), ()> = encode(message, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    assert_eq!(done, Ok(()));
    bytes
}

/// Feeds `bytes` to a deframer and collects what comes out.
fn deframe(capacity: usize, bytes: &[u8]) -> Vec<Result<Vec<u8>, FrameError>> {
    let mut buffer = std::vec![0; capacity];
    let mut deframer = Deframer::new(&mut buffer);
    bytes
        .iter()
        .filter_map(|&byte| deframer.push(byte).map(|frame| frame.map(<[u8]>::to_vec)))
        .collect()
}

#[test]
fn every_length_and_pattern_comes_back() {
    let mut random = Pcg32::seed_from_u64(1);
    for length in (0..600).chain([1000, 4000]) {
        for zeros in [0, 1, 8] {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    let word = random.next_u32();
                    let is_zero = zeros > 0 && word % 8 < zeros;
                    if is_zero { 0 } else { (word >> 8) as u8 | 1 }
                })
                .collect();
            let request = Request::LoadData {
                offset: length,
                bytes: &bytes,
            };
            let sent = frame(&request);
            assert_eq!(
                sent.iter().position(|&byte| byte == 0),
                Some(sent.len() - 1)
            );
            let got = deframe(8192, &sent);
            assert_eq!(got.len(), 1);
            let message = got[0].as_ref().expect("a sound frame");
            assert_eq!(decode::<Request>(message), Some(request));
        }
    }
}

#[test]
fn our_framing_is_the_cobs_crates() {
    let bytes: Vec<u8> = (0..2000u32).map(|index| (index % 300) as u8).collect();
    let request = Request::Infer {
        input: Input::Bytes(&bytes),
    };
    let mut plain = [0; 4096];
    let mut message = postcard::to_slice(&request, &mut plain).unwrap().to_vec();
    message.extend(CRC32.checksum(&message).to_le_bytes());
    let mut stuffed = [0; 4096];
    let length = cobs::encode(&message, &mut stuffed);
    let ours = frame(&request);
    // An encoder may or may not add an empty block after a full one: compare what is decoded.
    let mut decoded = ours[..ours.len() - 1].to_vec();
    let decoded_length = cobs::decode_in_place(&mut decoded).unwrap();
    assert_eq!(decoded[..decoded_length], message);
    assert!(ours.len() <= length + 2);
}

#[test]
fn responses_come_back() {
    let responses = [
        Response::Hello(Hello {
            protocol: PROTOCOL,
            board: "mps2-an386",
            max_data: 1024,
            model_ram: 0,
            session_ram: 8192,
            slot: 1 << 21,
            calibration: CALIBRATION_INSTRUCTIONS,
        }),
        Response::Logits(Logits {
            output: &[1, 0, 255],
            label: 2,
            instructions: u64::MAX,
        }),
        Response::Adversarial(Adversarial {
            bytes: &[0; 300],
            label: 65_535,
            fooled: true,
            queries: 40,
            gradients: 20,
            instructions: 0,
        }),
        Response::Error(Fault::new(FaultCode::ModelTooLarge, 10, usize::MAX)),
        Response::Bye,
    ];
    for response in responses {
        let got = deframe(1024, &frame(&response));
        let message = got[0].as_ref().expect("a sound frame");
        assert_eq!(decode::<Response>(message), Some(response));
    }
}

#[test]
fn a_frame_after_a_damaged_one_is_understood() {
    let good = frame(&Request::Stats);
    let long = frame(&Request::LoadData {
        offset: 0,
        bytes: &[7; 500],
    });
    for cut in 1..long.len() {
        let mut bytes = long[..cut].to_vec();
        bytes.push(0);
        bytes.extend(&good);
        let got = deframe(1024, &bytes);
        let last = got.last().expect("frames").as_ref().expect("sound");
        assert_eq!(
            decode::<Request>(last),
            Some(Request::Stats),
            "cut at {cut}"
        );
        if cut + 1 < long.len() {
            assert!(got[0].is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    let sound = frame(&Request::LoadData {
        offset: 3,
        bytes: &[0, 1, 2, 3, 0, 200, 100],
    });
    for bit in 0..8 * (sound.len() - 1) {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        for result in deframe(64, &bytes) {
            assert!(result.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_frame_longer_than_the_buffer_gives_both_sizes() {
    let long = frame(&Request::LoadData {
        offset: 0,
        bytes: &[7; 500],
    });
    let mut bytes = long.clone();
    bytes.extend(frame(&Request::Hello));
    let got = deframe(64, &bytes);
    let length = long.len() - 1;
    assert_eq!(
        got[0],
        Err(FrameError::TooLong {
            length,
            capacity: 64
        })
    );
    let text = std::format!(
        "{}",
        FrameError::TooLong {
            length,
            capacity: 64
        }
    );
    assert!(text.contains("64") && text.contains(&std::format!("{length}")));
    assert_eq!(
        decode::<Request>(got[1].as_ref().expect("sound")),
        Some(Request::Hello)
    );
}

#[test]
fn an_error_of_the_line_stops_the_message() {
    let mut calls = 0;
    let done = encode(
        &Request::LoadData {
            offset: 0,
            bytes: &[7; 5000],
        },
        |_| {
            calls += 1;
            if calls == 2 { Err("broken") } else { Ok(()) }
        },
    );
    assert_eq!((done, calls), (Err("broken"), 2));
}

#[test]
fn random_bytes_never_panic_and_never_pass() {
    let mut random = Pcg32::seed_from_u64(7);
    let mut buffer = [0; 128];
    let mut deframer = Deframer::new(&mut buffer);
    let (mut sound, mut damaged) = (0, 0);
    for _ in 0..2_000_000 {
        let word = random.next_u32();
        // Zeros are more frequent than chance has them, and small codes make valid COBS likely.
        let byte = match word % 16 {
            0 => 0,
            1..6 => (word >> 8) as u8 % 8,
            _ => (word >> 8) as u8,
        };
        match deframer.push(byte) {
            Some(Ok(_)) => sound += 1,
            Some(Err(_)) => damaged += 1,
            None => {}
        }
    }
    assert!(damaged > 50_000, "{damaged}");
    assert!(sound < 10, "{sound}");
}

#[test]
fn random_messages_never_panic() {
    let mut random = Pcg32::seed_from_u64(9);
    let mut bytes = [0; 64];
    let mut understood = 0;
    for _ in 0..300_000 {
        random.fill_bytes(&mut bytes);
        bytes[0] %= 12;
        let length = (random.next_u32() % 65) as usize;
        understood += usize::from(decode::<Request>(&bytes[..length]).is_some());
        understood += usize::from(decode::<Response>(&bytes[..length]).is_some());
    }
    assert!(understood > 0);
}

#[test]
fn a_memory_of_the_needed_size_and_no_smaller_one_has_room() {
    for (session, input, scratch, kept) in [
        (100, 7, 3, 7),
        (96, 64, 64, 64),
        (1, 1, 0, 1),
        (1000, 12, 5, 0),
    ] {
        let places = Places::new(session, input, scratch).keeping(kept);
        let needed = places.needed();
        assert!(needed >= session + 2 * input + 4 * (scratch + kept));
        for memory in 0..needed + 40 {
            // what lies in front ends before what is kept begins
            let front = places.session + 2 * places.input + places.scratch;
            let end = match kept {
                0 => Some(memory),
                _ => places.kept_at(memory),
            };
            let has_room = end.is_some_and(|end| front <= end);
            match places.check(memory) {
                Ok(()) => assert!(has_room, "{memory} of {places:?}"),
                Err(fault) => {
                    assert!(!has_room, "{memory} of {places:?}");
                    assert_eq!(
                        fault,
                        Fault::new(FaultCode::SessionTooLarge, needed, memory)
                    );
                }
            }
        }
        assert_eq!(places.check(needed), Ok(()));
    }
    // a perturbation takes memory of its own
    let alone = Places::new(100, 8, 8);
    assert_eq!(alone.keeping(8).needed(), alone.needed() + 32);
}

#[test]
fn a_pass_that_the_attack_does_not_have_is_refused() {
    let ball = crate::attack::Ball {
        norm: crate::attack::Norm::Linf,
        epsilon: 1.0,
        low: 0.0,
        high: 1.0,
    };
    let spec = Spec::universal(ball, 3);
    let learn = |pass| Turn::Learn { pass }.pass(&spec);
    assert_eq!(Turn::Begin.pass(&spec), Ok(Some(0)));
    assert_eq!(Turn::Apply.pass(&spec), Ok(None));
    assert_eq!(learn(2), Ok(Some(2)));
    for pass in [3, 4, u16::MAX] {
        let fault = Fault::new(FaultCode::NoPass, 3, pass.into());
        assert_eq!(learn(pass), Err(fault));
    }
}
