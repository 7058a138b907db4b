//! The promises of the library, each in a module of its own, over loopback.
//!
//! `cargo test -p unstall --test it never_stalls` runs one of them. Tests that need a process of their
//! own are the other programs in `lib/tests`.

mod architecture;
mod axum_upgrade;
mod bearer_tokens;
mod both_write_before_they_read;
mod cancellation;
mod client_certificates_are_checked;
mod closes_in_time;
mod common;
mod cut_at_every_byte;
mod delivery_is_acknowledged;
mod drains_what_is_there;
mod driven_by_anybody;
mod events_and_stats;
mod foreign_proxies_are_passed;
mod forever_is_a_duration;
mod frames_of_rfc_6455;
mod halves_make_a_connection;
mod http_beside_websockets;
mod killed_process_is_noticed;
mod message_limits_are_kept;
mod messages_are_compressed;
mod messages_stay_as_they_were;
mod million_messages_with_faults;
mod never_stalls;
mod outages_heal;
mod over_http2;
mod overflow_is_marked;
mod peers_words_are_cut_to_size;
mod random_consumers;
mod reconnects;
mod server_checks_who_comes;
mod server_knows_clients_behind_proxies;
mod server_lets_nobody_take_everything;
mod server_places_belong_to_connections;
mod server_refuses_what_it_cannot_take;
mod server_renews_its_certificate;
mod server_shuts_down_in_time;
mod server_survives_want_of_descriptors;
mod session_hooks_and_fallback;
mod sessions_close_in_time;
mod sessions_open_with_the_upgrade;
mod sessions_resume;
mod sessions_that_cannot_resume;
mod silence_is_noticed;
mod stalls_name_their_cause;
mod status_shows_every_connection;
mod stopped_application;
mod streams_of_any_kind;
mod users_code_harms_nobody_else;
mod vanished_while_paused;
mod what_people_send;
