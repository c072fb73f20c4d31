//! The words of nginx that stand beside what is imported: those that need nothing here, and those without an equal.

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is looked at where it is in force.
    Imported,
    /// Here that is so anyway, or nobody can tell the difference.
    Needless,
    /// It has no equal.
    Missing(&'static str, &'static str),
}

use Fate::{Imported, Missing, Needless};

/// What is looked at.
const IMPORTED: &str = "\
    access_log add_header alias allow auth_basic auth_basic_user_file auth_jwt auth_request client_body_timeout \
    client_header_timeout client_max_body_size deny error_page expires fastcgi_pass grpc_pass gzip http if include \
    index internal keepalive_timeout limit_conn limit_conn_zone limit_except limit_req limit_req_zone listen location \
    proxy_connect_timeout proxy_hide_header proxy_pass proxy_read_timeout proxy_set_header proxy_redirect return \
    rewrite root satisfy scgi_pass secure_link secure_link_md5 server server_name set set_real_ip_from \
    ssl_certificate ssl_certificate_key ssl_client_certificate ssl_verify_client stream try_files types upstream \
    uwsgi_pass valid_referers";

/// What needs nothing: of nginx's own process, of how it moves bytes, and what the proxy does by itself.
const NEEDLESS: &str = "\
    absolute_redirect aio autoindex_exact_size break charset chunked_transfer_encoding client_body_buffer_size \
    client_body_temp_path client_header_buffer_size connection_pool_size daemon debug_connection default_type \
    directio disable_symlinks env error_log etag events fastcgi_buffers fastcgi_index fastcgi_param \
    fastcgi_read_timeout fastcgi_split_path_info fastcgi_temp_path grpc_set_header gzip_buffers gzip_comp_level \
    gzip_disable gzip_http_version gzip_min_length gzip_proxied gzip_static gzip_types gzip_vary http2 \
    http2_max_concurrent_streams if_modified_since ignore_invalid_headers keepalive keepalive_requests \
    large_client_header_buffers limit_req_log_level limit_req_status lingering_close load_module \
    log_not_found map_hash_bucket_size master_process merge_slashes mime msie_padding multi_accept open_file_cache \
    open_file_cache_errors open_file_cache_min_uses open_file_cache_valid output_buffers pcre_jit pid \
    port_in_redirect postpone_output proxy_buffer_size proxy_buffering proxy_buffers proxy_busy_buffers_size \
    proxy_headers_hash_bucket_size proxy_headers_hash_max_size proxy_http_version proxy_ignore_client_abort \
    proxy_max_temp_file_size proxy_next_upstream proxy_next_upstream_tries proxy_pass_header \
    proxy_pass_request_body proxy_pass_request_headers proxy_request_buffering proxy_send_timeout \
    proxy_socket_keepalive proxy_temp_file_write_size proxy_temp_path real_ip_header real_ip_recursive \
    recursive_error_pages reset_timedout_connection resolver resolver_timeout scgi_temp_path send_timeout sendfile \
    sendfile_max_chunk server_name_in_redirect server_names_hash_bucket_size server_names_hash_max_size \
    server_tokens ssl_buffer_size ssl_ciphers ssl_conf_command ssl_dhparam ssl_ecdh_curve \
    ssl_prefer_server_ciphers ssl_protocols ssl_session_cache ssl_session_tickets ssl_session_timeout tcp_nodelay \
    tcp_nopush types_hash_bucket_size types_hash_max_size underscores_in_headers use user uwsgi_temp_path \
    variables_hash_bucket_size variables_hash_max_size worker_connections worker_cpu_affinity worker_priority \
    worker_processes worker_rlimit_nofile worker_shutdown_timeout";

/// What has no equal: by a word or its beginning, what is so now, and what to do instead.
const MISSING: &[(&str, &str, &str)] = &[
    ("autoindex", "no listings of folders are made", "let the application list what is to be listed"),
    ("add_after_body", "answers are not changed", "let the application write it"),
    ("add_before_body", "answers are not changed", "let the application write it"),
    ("addition_types", "answers are not changed", "let the application write it"),
    (
        "mirror",
        "requests are not doubled",
        "try a version on a share of the visitors instead: `bgctl canary SERVICE PERCENT`",
    ),
    ("proxy_cache", "answers are not kept", "put a cache or a CDN in front, or let the application keep them"),
    ("proxy_no_cache", "answers are not kept", "nothing, where no cache is needed"),
    ("proxy_store", "answers are not kept", "let the application write its files"),
    ("proxy_cookie_", "cookies are handed on as they are", "set the domain and path of cookies in the application"),
    (
        "proxy_intercept_errors",
        "an application's own error pages are handed on",
        "write those pages in the application",
    ),
    (
        "proxy_bind",
        "connections to applications come from whichever address the system takes",
        "route it in the system",
    ),
    ("proxy_limit_rate", "answers are not slowed down", "shape the traffic in the system, as by `tc`"),
    ("limit_rate", "answers are not slowed down", "shape the traffic in the system, as by `tc`"),
    ("proxy_method", "methods are handed on as they are", "let the application take the method that it is sent"),
    ("proxy_set_body", "bodies are handed on as they are", "let the application take the body that it is sent"),
    ("proxy_ssl_", "the proxy speaks no TLS to applications", "let the application listen without TLS on this machine"),
    ("proxy_ignore_headers", "headers of applications are not instructions to the proxy", "nothing"),
    ("sub_filter", "answers are not changed", "let the application write its links as they are to be"),
    ("ssi", "pages are handed on as they are", "let the application put its pages together"),
    (
        "stub_status",
        "it has no page of its own for that",
        "`bgctl status`, `bgctl top`, and GET /metrics of the admin socket",
    ),
    (
        "status",
        "it has no page of its own for that",
        "`bgctl status`, `bgctl top`, and GET /metrics of the admin socket",
    ),
    ("map", "no table of values is made", "where the variable is used the list says what is missing"),
    ("geo", "no table of values is made", "allow and deny networks by `access`, where the variable kept some out"),
    ("split_clients", "visitors are not shared out by a table", "`bgctl canary SERVICE PERCENT`"),
    ("log_format", "the access log has forms of its own", "`access = \"combined\"` or `\"json\"` in [proxy.log]"),
    ("perl_", "nothing is run in the proxy", "let the application do it"),
    ("js_", "nothing is run in the proxy", "let the application do it"),
    ("image_filter", "pictures are handed on as they are", "let the application or a CDN change them"),
    ("dav_", "files are served, not written", "let an application take what is written"),
    ("mp4", "a video is served by ranges, as every file is", "nothing: players ask for ranges"),
    ("flv", "a video is served by ranges, as every file is", "nothing: players ask for ranges"),
    ("random_index", "no page is chosen at random", "let the application choose"),
    ("ssl_stapling", "no OCSP answer is stapled", "nothing: Let's Encrypt and others have ended OCSP"),
    ("ssl_trusted_certificate", "no OCSP answer is stapled", "nothing: Let's Encrypt and others have ended OCSP"),
    ("ssl_crl", "no list of revoked client certificates is read", "issue client certificates for a short time"),
    (
        "ssl_password_file",
        "a key with a password can't be read",
        "write the key without one, readable by its owner alone",
    ),
    ("ssl_reject_handshake", "a host without a certificate is shown the first one", "nothing: browsers refuse it"),
    ("mail", "mail is not handed on", "keep nginx for it"),
];

/// Returns what becomes of a directive.
pub(crate) fn fate(name: &str) -> Fate {
    let is_among = |words: &str| words.split(' ').any(|word| word == name);
    if is_among(IMPORTED) {
        return Imported;
    }
    if is_among(NEEDLESS) {
        return Needless;
    }
    // A whole word before the beginning of one.
    let whole = MISSING.iter().find(|(word, ..)| *word == name);
    let begins = MISSING.iter().find(|(word, ..)| word.ends_with('_') && name.starts_with(word));
    let related = MISSING.iter().find(|(word, ..)| name.strip_prefix(word).is_some_and(|rest| rest.starts_with('_')));
    match whole.or(begins).or(related) {
        Some((_, what, instead)) => Missing(what, instead),
        None => Missing(
            "it is not a directive that the import knows, and nothing takes its place",
            "see in nginx's documentation what it does, and whether the application relies on it",
        ),
    }
}

/// Returns the words that are imported, and those without an equal.
#[cfg(test)]
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    IMPORTED.split(' ').chain(MISSING.iter().map(|(word, ..)| *word))
}
