import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.batch_alter_table("posts") as posts:
        posts.add_column(
            sa.Column("title", sa.String(200), nullable=False, server_default="untitled")
        )


def downgrade():
    with op.batch_alter_table("posts") as posts:
        posts.drop_column("title")
