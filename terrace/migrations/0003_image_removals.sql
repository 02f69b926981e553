-- Which images' bytes are being removed from which pool, so that nobody comes to rely on them meanwhile.

create table image_removals (
    pool_id  bigint not null references pools on delete cascade,
    sha256   text not null,
    node     text not null references nodes,     -- who is at it
    began_at timestamptz not null,
    ended_at timestamptz,                        -- null: the bytes may go at any moment
    primary key (pool_id, sha256)
);
create index image_removals_open on image_removals (pool_id) where ended_at is null;
create index image_locations_node on image_locations (node);
