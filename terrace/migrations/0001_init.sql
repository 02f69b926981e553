-- The truth of a Terrace cloud. Forward only; roles and grants are made by terrace.migrate.

create table projects (
    id         bigint generated always as identity primary key,
    name       text not null unique,
    created_at timestamptz not null default now()
);

create table tokens (
    id           bigint generated always as identity primary key,
    project_id   bigint not null references projects,
    token_hash   bytea not null unique,      -- SHA-256 of a 256-bit secret
    role         text not null check (role in ('admin', 'owner', 'member', 'viewer')),
    description  text not null default '',
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);

create function tokens_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('terrace_tokens', '');
    return null;
end $$;
create trigger tokens_changed after update or delete on tokens
    for each statement execute function tokens_changed();

create table nodes (
    name            text primary key,
    url             text not null,
    state           text not null default 'active' check (state in ('active', 'draining', 'maintenance')),
    incarnation     bigint not null default 0,   -- grows with each start of the node's worker
    cpu             integer not null,
    cpu_overcommit  real not null,
    cpu_claimed     integer not null default 0 check (cpu_claimed >= 0),
    ram_mib         bigint not null,
    ram_overcommit  real not null,
    ram_claimed_mib bigint not null default 0 check (ram_claimed_mib >= 0),
    last_seen       timestamptz not null default now()
) with (fillfactor = 50);                        -- claims and heartbeats update in place

create table pools (
    id           bigint generated always as identity primary key,
    name         text not null unique,
    driver       text not null,
    node         text references nodes,          -- null: every node reaches it
    disk_gib     bigint not null,
    overcommit   real not null,
    claimed_gib  bigint not null default 0 check (claimed_gib >= 0)
) with (fillfactor = 50);

create table images (
    id           bigint generated always as identity primary key,
    project_id   bigint not null references projects,
    name         text not null,
    status       text not null check (status in ('importing', 'available')),
    format       text check (format in ('qcow2', 'raw')),
    sha256       text,
    size_bytes   bigint,
    min_disk_gib integer,
    operation_id bigint,
    created_at   timestamptz not null default now(),
    unique (project_id, name)
);
create index images_sha256 on images (sha256);

create table image_locations (                   -- which dir pool holds which file
    sha256 text not null,
    node   text not null references nodes,
    primary key (sha256, node)
);

create table ssh_keys (
    id          bigint generated always as identity primary key,
    project_id  bigint not null references projects,
    name        text not null,
    public_key  text not null,
    fingerprint text not null,
    created_at  timestamptz not null default now(),
    unique (project_id, name)
);

create table networks (
    id         bigint generated always as identity primary key,
    name       text not null unique,
    bridge     text not null,
    dhcp       text not null check (dhcp in ('terrace', 'external')),
    created_at timestamptz not null default now()
);

create table subnets (
    id         bigint generated always as identity primary key,
    network_id bigint not null unique references networks on delete cascade,
    cidr       cidr not null,
    gateway    inet not null,
    dns        text[] not null default '{}'
);

create table addresses (
    subnet_id   bigint not null references subnets on delete cascade,
    ip          inet not null,
    vm_id       bigint,
    released_at timestamptz,
    primary key (subnet_id, ip)
);
-- the address that was released longest ago is given out first
create index addresses_free on addresses (subnet_id, released_at nulls first, ip) where vm_id is null;
create index addresses_vm on addresses (vm_id) where vm_id is not null;

create table vms (
    id            bigint generated always as identity primary key,
    uuid          uuid not null unique,
    project_id    bigint not null references projects,
    name          text not null
                  check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' and name !~ '^[0-9]+$'),
    cpu           integer not null,
    ram_mib       bigint not null,
    disk_gib      bigint not null,
    image_id      bigint not null references images,
    ssh_keys      text[] not null default '{}',
    password_hash text,
    files         jsonb not null default '[]',
    user_data     text,
    labels        jsonb not null default '{}',
    network_id    bigint not null references networks,
    mac           text not null unique,
    ip            inet,
    pool_id       bigint not null references pools,
    node          text not null references nodes,
    epoch         integer not null default 1,
    desired       text not null check (desired in ('running', 'stopped', 'deleted')),
    status        text not null check (status in (
                      'creating', 'starting', 'running', 'paused', 'stopping', 'stopped', 'rebooting', 'crashed',
                      'rescue', 'migrating', 'rebuilding', 'deleting', 'error', 'unknown')),
    error         jsonb,
    operation_id  bigint,                        -- the newest one
    created_at    timestamptz not null default now(),
    started_at    timestamptz,
    ready_at      timestamptz,
    unique (project_id, name)
) with (fillfactor = 70);
create index vms_list on vms (project_id, id);
create index vms_node on vms (node);
create index vms_image on vms (image_id);
create index vms_network on vms (network_id);
create index vms_labels on vms using gin (labels jsonb_path_ops);

create table operations (
    id          bigint generated always as identity primary key,
    kind        text not null,
    project_id  bigint not null references projects,
    vm_id       bigint,                          -- no foreign key: operations outlive their VM
    vm_name     text,
    image_id    bigint,
    node        text not null references nodes,
    epoch       integer not null default 1,
    origin      text,                            -- the node whose client waits for it
    params      jsonb not null default '{}',
    steps       text[] not null,
    cursor      integer not null default 0,
    state       text not null check (state in (
                    'pending', 'running', 'undoing', 'succeeded', 'failed', 'stuck', 'superseded')),
    attempt     integer not null default 0,
    run_after   timestamptz not null default now(),
    result      jsonb not null default '{}',
    error       jsonb,
    token_id    bigint,
    request_id  text not null default '',
    created_at  timestamptz not null default now(),
    started_at  timestamptz,
    finished_at timestamptz
) with (fillfactor = 70);
create unique index operations_one_live_per_vm on operations (vm_id)
    where state in ('pending', 'running', 'undoing');
create unique index operations_one_live_per_image on operations (image_id, node)
    where state in ('pending', 'running', 'undoing');
create index operations_live on operations (node, id) where state in ('pending', 'running', 'undoing');
create index operations_vm on operations (vm_id, id);
create index operations_project on operations (project_id, id);

create table operation_events (
    id           bigint generated always as identity primary key,
    operation_id bigint not null references operations on delete cascade,
    step         text not null,
    phase        text not null check (phase in ('do', 'undo')),
    ok           boolean not null,
    attempt      integer not null,
    started_at   timestamptz not null,
    duration_ms  real not null,
    error        jsonb
);
create index operation_events_operation on operation_events (operation_id, id);

create table idempotency_keys (
    project_id   bigint not null references projects,
    route        text not null,
    key          text not null,
    body_hash    bytea not null,
    operation_id bigint,
    response     jsonb,                          -- of a change that needs no operation: {"status": …, "body": …}
    expires_at   timestamptz not null,
    primary key (project_id, route, key)
);
create index idempotency_keys_expiry on idempotency_keys (expires_at);
create index idempotency_keys_operation on idempotency_keys (operation_id);
