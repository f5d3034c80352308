"""Dashboards on Weights & Biases, saved through its own library, which need not be installed."""

from collections.abc import Mapping
from typing import Any

from ssl_swin.errors import UserError


def save_workspace(shown: Mapping[str, Any]) -> str:
    """Save a workspace as a new view of its project, which all its members see.

    Args:
        shown: As `reporting.workspace.specification` gives it.

    Returns:
        Its address.

    Raises:
        UserError: If there is no key, no library or no such project, or the server refuses.
    """
    from ssl_swin.launch.resolvers import wandb_offline

    if wandb_offline():
        raise UserError(
            "a dashboard needs a key for Weights & Biases and a network: run `wandb login`, or set "
            "WANDB_API_KEY, and unset WANDB_MODE; --json prints it without"
        )
    workspace = made_workspace(shown)
    try:
        workspace.save()
        return str(workspace.url)
    except Exception as error:  # wandb's own classes, which nothing here imports
        problem = " ".join(str(error).split())[:400]
        place = f"{shown['entity']}/{shown['project']}"
        raise UserError(f"the dashboard cannot be saved to {place}: {problem}") from error


def made_workspace(shown: Mapping[str, Any]) -> Any:
    """Return a workspace as the library of Weights & Biases has it; nothing is sent.

    Args:
        shown: As `reporting.workspace.specification` gives it.

    Raises:
        UserError: If the library is missing.
    """
    try:
        from wandb_workspaces import workspaces
    except ModuleNotFoundError as error:
        raise UserError(
            "a dashboard needs wandb-workspaces, which is not installed: "
            "pip install 'ssl_swin[workspaces]'"
        ) from error
    return workspaces.Workspace(
        entity=shown["entity"],
        project=shown["project"],
        name=shown["name"],
        settings=workspaces.WorkspaceSettings(x_axis=shown["x_axis"]),
        sections=[
            workspaces.Section(
                name=section["name"],
                panels=[_panel(panel, shown["x_axis"]) for panel in section["panels"]],
                is_open=True,
                panel_settings=workspaces.SectionPanelSettings(x_axis=shown["x_axis"]),
            )
            for section in shown["sections"]
        ],
    )


def _panel(shown: Mapping[str, str], x_axis: str) -> Any:
    from wandb_workspaces.reports.v2.interface import LinePlot, MediaBrowser

    if "pictures" in shown:
        pictures = [shown["pictures"]]
        return MediaBrowser(title=shown["title"], media_keys=pictures, gallery_axis="step")
    return LinePlot(
        title=shown["title"],
        x=x_axis,
        y=[shown["metric"]] if "metric" in shown else [],
        metric_regex=shown.get("pattern"),
        title_y=shown["unit"] or None,
    )
