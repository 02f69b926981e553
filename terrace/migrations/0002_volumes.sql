-- Volumes, snapshots, pools that several nodes share, and what a pool holds that no row speaks of.

create table cloud (                             -- one row: the mark of everything that this cloud makes in a pool
    id   uuid not null default gen_random_uuid(),
    sole boolean primary key default true check (sole)
);
insert into cloud default values;

alter table nodes add column pool_id bigint references pools;
update nodes n set pool_id = p.id from pools p where p.node = n.name or p.node is null;
alter table pools add column used_bytes bigint;  -- as its storage says, not as claims promise
alter table pools add column checked_at timestamptz;

create table volumes (
    id             bigint generated always as identity primary key,
    uuid           uuid not null unique,
    project_id     bigint not null references projects,
    name           text not null
                   check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' and name !~ '^[0-9]+$'),
    size_gib       bigint not null check (size_gib > 0),
    pool_id        bigint references pools,      -- null: nothing is stored before it is attached for the first time
    vm_id          bigint references vms,
    slot           integer check (slot >= 2),    -- vda and vdb are the system disk and the seed
    delete_with_vm boolean not null default false,
    status         text not null check (status in (
                       'creating', 'available', 'attaching', 'in_use', 'detaching', 'deleting', 'error')),
    error          jsonb,
    operation_id   bigint,
    created_at     timestamptz not null default now(),
    unique (project_id, name),
    unique (vm_id, slot),
    check ((vm_id is null) = (slot is null))
);
create index volumes_list on volumes (project_id, id);
create index volumes_pool on volumes (pool_id);

create table snapshots (
    id           bigint generated always as identity primary key,
    uuid         uuid not null unique,
    project_id   bigint not null references projects,
    vm_id        bigint not null references vms on delete cascade,
    name         text not null
                 check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' and name !~ '^[0-9]+$'),
    status       text not null check (status in ('creating', 'available', 'restoring', 'deleting', 'error')),
    consistency  text check (consistency in ('filesystem', 'crash')),
    operation_id bigint,
    created_at   timestamptz not null default now(),
    unique (vm_id, name)
);
create index snapshots_list on snapshots (project_id, id);

create table snapshot_disks (
    snapshot_id bigint not null references snapshots on delete cascade,
    volume_id   bigint references volumes,       -- null: the VM's system disk
    size_gib    bigint not null,
    unique nulls not distinct (snapshot_id, volume_id)
);
create index snapshot_disks_volume on snapshot_disks (volume_id) where volume_id is not null;

alter table operations alter column project_id drop not null;  -- null: the platform's own
alter table operations add column volume_id bigint;
alter table operations add column snapshot_id bigint;
create unique index operations_one_live_per_volume on operations (volume_id)
    where state in ('pending', 'running', 'undoing');
create index operations_volume on operations (volume_id, id) where volume_id is not null;

create table pool_drift (                        -- where a pool and the rows differ, as its last check found it
    pool_id    bigint not null references pools on delete cascade,
    name       text not null,
    kind       text not null check (kind in ('orphan', 'missing', 'foreign')),
    first_seen timestamptz not null default now(),
    last_seen  timestamptz not null default now(),
    primary key (pool_id, name)
);
